"""Fakes, contract suites, builders."""
