"""Whole runs as short files: the settings of a paper or of a demonstration, in plain Python.

They live in the package, not beside it, so that an installed `rein` has them too.
"""
