"""Files and folders that are whole or not there: formats, checkpoints, settings, outputs."""
