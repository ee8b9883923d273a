"""Points on pictures as annotation tools export them: one module a format. No library is loaded here."""
