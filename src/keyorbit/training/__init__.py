"""Joint training of novel views and keypoints, and the loop that every training here runs in."""
