"""Mesh files: read, stood upright, and rendered as objects."""
