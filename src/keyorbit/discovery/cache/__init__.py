"""Recorded queries on disk."""
