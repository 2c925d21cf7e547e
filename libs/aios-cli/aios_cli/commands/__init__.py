"""The commands: each a thin function that asks the server, and shows or prints what it says."""
