"""Furthest point sampling and the dual alignment score, spelled out."""

import math


def furthest(points, count, candidates, start):
    """points: [item token dim]."""

    def distance(a, b):
        return sum(math.dist(item[a].tolist(), item[b].tolist()) for item in points) / len(points)

    chosen = [start]
    while len(chosen) < count:
        best, best_distance = None, -1.0
        for token in candidates:
            if token in chosen:
                continue
            nearest = min(distance(token, other) for other in chosen)
            if nearest > best_distance:
                best, best_distance = token, nearest
        chosen.append(best)
    return chosen


def nearest(point, others, allowed):
    return min(allowed, key=lambda j: math.dist(point.tolist(), others[j].tolist()))


def dual_alignment(keypoints, landmarks, known, references):
    """The formula in keyorbit.metrics.dual_alignment_score, with loops."""
    items, count = len(keypoints), keypoints.shape[1]
    marks = range(landmarks.shape[1])
    scores = []
    for r in range(min(references, items)):
        known_r = [m for m in marks if known[r][m]]
        if not known_r:
            continue
        label = [nearest(keypoints[r, k], landmarks[r], known_r) for k in range(count)]
        for i in range(items):
            known_i = [m for m in marks if known[i][m]]
            both = [m for m in known_i if m in known_r]
            labelled = [k for k in range(count) if label[k] in known_i]
            if i == r or not both or not labelled:
                continue
            a = sum(label[nearest(landmarks[i, m], keypoints[i], range(count))] == m for m in both) / len(both)
            b = sum(nearest(keypoints[i, k], landmarks[i], known_i) == label[k] for k in labelled) / len(labelled)
            scores.append((a + b) / 2)
    return sum(scores) / len(scores)
