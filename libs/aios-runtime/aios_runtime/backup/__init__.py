"""Backups of a data directory: one file, how it is written and read, and what proves that it is whole."""
