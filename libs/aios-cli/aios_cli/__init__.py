"""The aios command and the launcher."""
