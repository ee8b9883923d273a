"""Measure how good keypoints are."""
