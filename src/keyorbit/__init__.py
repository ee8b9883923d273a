"""Keypoints, named and in 3D, from the cross-attention of multi-view diffusion; no labels."""
