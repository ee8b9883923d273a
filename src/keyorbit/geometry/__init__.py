"""Mathematics of views, cameras, heatmaps and points. This room imports torch, scipy and numpy only."""
