"""How the tiny Zero123++ that ships with keyorbit was made."""
