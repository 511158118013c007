"""Feedback in and out: the formats of other programs and of the papers' released data, and Rein's own.

`table.FORMATS` lists them; `importing.import_file` and `exporting.export` do the work.
"""
