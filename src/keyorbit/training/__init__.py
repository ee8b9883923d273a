"""Joint training of novel views and keypoints, and the training loop of this package and of the tiny model's recipe."""
