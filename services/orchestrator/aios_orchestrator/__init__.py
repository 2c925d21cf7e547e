"""Runs, timers, approvals, budgets, resources."""
