"""The input camera by loops: every elevation tried, every map and every pixel of the outline looked at one by one."""

import math

import numpy as np


def sample(image, x, y, edge):
    """Bilinear, pixel centres at (i + 0.5) / n; beyond the picture 0, or with ``edge`` the nearest pixel."""
    height, width = image.shape
    column, row = x * width - 0.5, y * height - 0.5
    total = 0.0
    for r in (math.floor(row), math.floor(row) + 1):
        for c in (math.floor(column), math.floor(column) + 1):
            weight = (1 - abs(row - r)) * (1 - abs(column - c))
            if edge:
                total += weight * image[min(max(r, 0), height - 1), min(max(c, 0), width - 1)]
            elif 0 <= r < height and 0 <= c < width:
                total += weight * image[r, c]
    return total


def pinhole(elevation, reach, focal):
    """What a camera at azimuth 0 that looks at the origin sees of a point, as a function of the point."""
    e = math.radians(elevation)
    forward = -np.array([math.cos(e), 0.0, math.sin(e)])
    right, down = np.array([0.0, 1.0, 0.0]), np.array([math.sin(e), 0.0, -math.cos(e)])

    def project(point):
        depth = reach + forward @ point
        return np.array([0.5 + focal * (right @ point) / depth, 0.5 + focal * (down @ point) / depth])

    return project


def mismatch(project, hull, mask, distance):
    """Mean squared distance between the projected hull and the silhouette, both ways."""
    seen = [project(point) for point in hull]
    outside = []
    for xy in seen:
        inner = np.clip(xy, 0, 1)
        outside.append((sample(distance, *inner, True) + np.abs(xy - inner).sum()) ** 2)
    rows, columns = np.nonzero(mask)
    some = [int(i) for i in np.linspace(0, len(rows) - 1, min(len(rows), 200))]
    pixels = [np.array([(columns[i] + 0.5) / mask.shape[1], (rows[i] + 0.5) / mask.shape[0]]) for i in some]
    bare = [min(((pixel - xy) ** 2).sum() for xy in seen) for pixel in pixels]
    return sum(outside) / len(outside) + sum(bare) / len(bare)


def fitted(project, hull, mask):
    """The camera zoomed and shifted so that the hull's box is the silhouette's."""
    rows, columns = np.nonzero(mask)
    low = np.array([columns.min() / mask.shape[1], rows.min() / mask.shape[0]])
    high = np.array([(columns.max() + 1) / mask.shape[1], (rows.max() + 1) / mask.shape[0]])
    seen = np.array([project(point) for point in hull])
    near, far = seen.min(0), seen.max(0)
    zoom = min(max(np.linalg.norm(high - low) / np.linalg.norm(far - near), 0.2), 5.0)
    return lambda point: (low + high) / 2 + zoom * (project(point) - (near + far) / 2)


def search(points, weights, heatmaps, xy, reach, focal, outline=None):
    """Elevation and its standard deviation, degrees; residuals, inliers and score. outline: hull, mask and distance."""
    guesses = []
    for elevation in range(-40, 83, 2):
        framed = pinhole(elevation, reach, focal)
        cameras = [(framed, 0.0)]
        if outline is not None:
            cameras.append((fitted(framed, outline[0], outline[1]), -3.0))
        for project, total in cameras:
            for point, weight, heatmap in zip(points, weights, heatmaps, strict=True):
                heat = sample(heatmap, *project(point), False) * heatmap.size
                total += 0.1 * weight * math.log(0.7 * heat + 0.3)
            if outline is not None:
                total -= 50 * mismatch(project, *outline) / (2 * 0.03**2)
            guesses.append((total, elevation, project))
    best = max(total for total, _, _ in guesses)
    shares = [math.exp(total - best) for total, _, _ in guesses]
    shares = [share / sum(shares) for share in shares]
    mean = sum(share * elevation for share, (_, elevation, _) in zip(shares, guesses, strict=True))
    variance = sum(share * (elevation - mean) ** 2 for share, (_, elevation, _) in zip(shares, guesses, strict=True))
    std = math.sqrt(variance + 2**2 / 12)
    nearest = min((abs(elevation - mean), elevation) for _, elevation, _ in guesses)[1]
    project = max((total, i) for i, (total, elevation, _) in enumerate(guesses) if elevation == nearest)[1]
    residuals = [np.linalg.norm(guesses[project][2](p) - seen) for p, seen in zip(points, xy, strict=True)]
    told = sorted(r for r, weight in zip(residuals, weights, strict=True) if weight > 0)
    noise = told[(len(told) - 1) // 2] / 1.1774
    known = std < 26
    inliers = [bool(r <= 3 * noise and w > 0 and known) for r, w in zip(residuals, weights, strict=True)]
    score = min(max(sum(weights) / len(weights), 0), 1) * (1 - std / 26) if known else 0.0
    return mean, std if known else math.inf, residuals, inliers, score
