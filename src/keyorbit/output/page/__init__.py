"""The report (one HTML page), and the panel that the report and the app share."""
