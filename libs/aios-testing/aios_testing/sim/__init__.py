"""A deterministic simulation of all of AIOS: the real code over a simulated clock, bus, store and outside world.

One seed decides everything. Read `run.py` first, then `loop.py` and `invariants.py`.
"""
