"""Telling a person who is not looking: a webhook for whatever begins to need one."""
