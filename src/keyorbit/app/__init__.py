"""The web app: keypoints of a dropped picture, discovery on a folder, and one token's attention layer by layer."""
