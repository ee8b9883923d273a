"""The web app: keypoints of an uploaded picture, discovery on a folder, and one token's attention at each layer."""
