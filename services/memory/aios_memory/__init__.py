"""Entities, facts, documents, episodes, artifacts."""
