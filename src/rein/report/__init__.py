"""The report of a run: one self-contained page, drawn from the files of its run folder."""
