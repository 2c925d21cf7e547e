"""Files under declared roots: read, write, undo, watch."""
