"""The report: one HTML page, and the panel that the app shares."""
