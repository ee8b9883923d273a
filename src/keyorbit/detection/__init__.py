"""Reading tokens on new objects."""
