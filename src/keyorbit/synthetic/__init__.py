"""Procedural objects with known 3D keypoints, and their pictures."""
