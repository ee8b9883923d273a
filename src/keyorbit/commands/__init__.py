"""The commands of ``keyorbit``, a module for each."""
