"""Readers of source text for test_tidy.py: `tree` lists the project's files, `rust` and `python` take them apart."""
