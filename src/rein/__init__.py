"""Rein trains language models and agents from human feedback, as one program that a person can read."""

__version__ = "0.1.0"
