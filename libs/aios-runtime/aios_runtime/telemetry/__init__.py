"""Traces and structured logs."""
