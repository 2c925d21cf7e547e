"""What the orchestrator decides: pure functions from a run, an input and a time to events and what follows from them.

Read `decide.py` first, then `advance.py` (what may start now) and `fold.py` (what each event does to a run).
"""
