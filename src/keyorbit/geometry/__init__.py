"""Views, cameras, maps and points: mathematics alone."""
