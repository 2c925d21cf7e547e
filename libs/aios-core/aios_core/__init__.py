"""Identifiers, money, values, labels, errors and canonical hashing: pure types and functions."""
