"""Views, maps and layers, one element at a time."""

import torch
import torch.nn.functional as F


def split(x, rows, cols):
    """[height width] -> list of views, row by row."""
    h, w = x.shape[0] // rows, x.shape[1] // cols
    views = []
    for r in range(rows):
        for c in range(cols):
            views.append(x[r * h : (r + 1) * h, c * w : (c + 1) * w])
    return views


def merge(views, rows, cols):
    """List of views -> [height width]."""
    h, w = views[0].shape
    out = torch.zeros(rows * h, cols * w, dtype=views[0].dtype)
    for i, view in enumerate(views):
        r, c = i // cols, i % cols
        for y in range(h):
            for x in range(w):
                out[r * h + y, c * w + x] = view[y, x]
    return out


def view_maps(layers, rows, cols, size):
    """layers: (maps [batch head position token], (height, width)). Every head resized by itself."""
    batch, _, _, tokens = layers[0][0].shape
    out = torch.zeros(batch, rows * cols, tokens, *size, dtype=layers[0][0].dtype)
    for maps, (height, width) in layers:
        heads = maps.shape[1]
        for b in range(batch):
            for head in range(heads):
                for t in range(tokens):
                    grid = maps[b, head, :, t].reshape(height, width)
                    for v, view in enumerate(split(grid, rows, cols)):
                        big = F.interpolate(view[None, None], size=size, mode="bilinear", align_corners=False)
                        out[b, v, t] += big[0, 0] / heads / len(layers)
    return out
