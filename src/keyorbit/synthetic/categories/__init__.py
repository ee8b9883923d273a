"""The kinds of procedural objects."""
