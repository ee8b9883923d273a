"""Procedural objects with known 3D keypoints, their renders, and the recipe of the tiny model trained on them."""
