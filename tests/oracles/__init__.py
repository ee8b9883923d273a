"""Slow, obvious versions of what keyorbit computes, to compare it with."""
