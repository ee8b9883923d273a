"""Finding tokens: settings, runs, losses, selection, and where maps come from."""
