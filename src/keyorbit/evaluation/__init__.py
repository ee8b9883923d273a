"""How good keypoints are."""
