"""Sandboxes, model calls, token accounting."""
