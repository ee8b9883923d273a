"""Losses, one pixel and one pair at a time."""

import math

import torch

from oracles.grids import merge


def peak(m):
    """Row and column of the greatest pixel, the first of equals."""
    best, where = -math.inf, (0, 0)
    for r in range(m.shape[0]):
        for c in range(m.shape[1]):
            if float(m[r, c]) > best:
                best, where = float(m[r, c]), (r, c)
    return where


def bump(m, sigma):
    """Gaussian of peak 1 at the map's greatest pixel."""
    row, col = peak(m)
    out = torch.zeros_like(m)
    for r in range(m.shape[0]):
        for c in range(m.shape[1]):
            out[r, c] = math.exp(-((r - row) ** 2 + (c - col) ** 2) / (2 * sigma**2))
    return out


def sharpening(maps, sigma):
    """maps: [item height width]."""
    return sum(float(((m - bump(m, sigma)) ** 2).mean()) for m in maps) / len(maps)


def kl(m, sigma):
    """KL of the Gaussian at the peak to one map [height width]."""
    target, given = bump(m, sigma), m / m.sum()
    target = target / target.sum()
    total = 0.0
    for r in range(m.shape[0]):
        for c in range(m.shape[1]):
            total += float(target[r, c]) * (math.log(target[r, c]) - math.log(given[r, c]))
    return total


def localization(maps, sigma):
    """maps: [batch view token height width]; the mean over the views of each view's loss."""
    views = maps.shape[1]
    return sum(sharpening(maps[:, v].flatten(0, 1), sigma) for v in range(views)) / views


def grid_sharpening(maps, rows, cols, sigma):
    grids = [merge(list(maps[b, :, t]), rows, cols) for b in range(len(maps)) for t in range(maps.shape[2])]
    return sharpening(grids, sigma)


def pixel_consistency(maps):
    """Over batch elements, tokens and pairs of views: squared distance of the peaks in pixels."""
    batch, views, tokens = maps.shape[:3]
    total, count = 0.0, 0
    for b in range(batch):
        for t in range(tokens):
            for i in range(views):
                for j in range(i):
                    (ri, ci), (rj, cj) = peak(maps[b, i, t]), peak(maps[b, j, t])
                    total += (ri - rj) ** 2 + (ci - cj) ** 2
                    count += 1
    return total / count
