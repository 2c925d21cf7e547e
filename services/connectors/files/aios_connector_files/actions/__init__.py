"""The connector's actions, one file each, forward and back side by side."""
