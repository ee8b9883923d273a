"""StableKeypoints as its paper and its code have it, told again in float64 and one thing at a time.

Places are rows and columns. theta is what its warps are drawn as: 2 × 3, from a warped picture's places to those of the
picture it was made of, both in [-1, 1], x before y.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F


def theta(degrees, scale, shift):
    """What is drawn: a rotation times a scale, and a shift of the place looked up."""
    turn = math.radians(degrees)
    return torch.tensor(
        [
            [scale * math.cos(turn), scale * math.sin(turn), shift[0]],
            [-scale * math.sin(turn), scale * math.cos(turn), shift[1]],
        ],
        dtype=torch.float64,
    )


def unit_square(drawn):
    """The same warp as where a place of the picture comes to lie in the warped one, in the unit square, 2 × 3."""
    whole = torch.cat([drawn, torch.tensor([[0, 0, 1.0]], dtype=torch.float64)])
    centred = torch.tensor([[2, 0, -1.0], [0, 2, -1], [0, 0, 1]], dtype=torch.float64)
    return (centred.inverse() @ whole.inverse() @ centred)[:2]


def resampled(maps, drawn):
    """[item channel height width] looked up at the places that theta gives; 0 outside."""
    grid = F.affine_grid(drawn.expand(len(maps), 2, 3), list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, align_corners=False)


def brought_back(maps, drawn):
    """Warped [item channel height width] back to the picture."""
    whole = torch.cat([drawn, torch.tensor([[0, 0, 1.0]], dtype=drawn.dtype)])
    return resampled(maps, whole.inverse()[:2])


def peaks(one, subjects):
    """(row, column) of the greatest pixel, then of the greatest that is not too near to those before."""
    left, found = np.array(one, np.float64), []
    height, width = left.shape
    for _ in range(subjects):
        row, column = divmod(int(left.argmax()), width)
        found.append((row, column))
        for i in range(height):
            for j in range(width):
                if math.hypot(i - (row + 0.5), j - (column + 0.5)) <= 0.05 * height:
                    left[i, j] = 0
    return found


def spots(one, sigma, subjects):
    """The mean of one Gaussian at each peak."""
    rows, columns = np.mgrid[: one.shape[0], : one.shape[1]]
    each = [np.exp(-((rows - i) ** 2 + (columns - j) ** 2) / (2 * sigma**2)) for i, j in peaks(one, subjects)]
    return np.mean(each, axis=0)


def _softmax(one):
    powers = np.exp(np.array(one, np.float64))
    return powers / powers.sum()


def best(maps, count, strategy, sigma, subjects):
    """The candidates of one picture's [token height width], the best first."""
    if strategy == "consistent":
        return list(range(count))
    scores = []
    for one in maps:
        probability = _softmax(one)
        if strategy == "entropy":
            scores.append(-(probability * np.log(probability)).sum())
        else:
            wanted = spots(one, sigma, subjects) + 1e-5
            wanted = wanted / wanted.sum()
            scores.append((wanted * (np.log(wanted) - np.log(probability))).sum())
    return sorted(range(len(maps)), key=scores.__getitem__)[:count]


def apart(moved, count, pool):
    """The furthest pair of the pool, then whatever is furthest from all chosen, by squares of whole pixels."""
    at = {token: divmod(int(np.array(moved[token]).argmax()), moved[token].shape[1]) for token in pool}

    def away(a, b):
        return (at[a][0] - at[b][0]) ** 2 + (at[a][1] - at[b][1]) ** 2

    furthest, chosen = -1, []
    for i, a in enumerate(pool):
        for b in pool[i + 1 :]:
            if away(a, b) > furthest:
                furthest, chosen = away(a, b), [a, b]
    while len(chosen) < count:
        rest = [token for token in pool if token not in chosen]
        chosen.append(max(rest, key=lambda token: min(away(token, other) for other in chosen)))
    return chosen


def loss(maps, moved, drawn, chosen, sigma, subjects, weights=(100.0, 1000.0)):
    """Sharpening and equivariance of the chosen tokens, and their weighted sum, differentiable in both [token …]."""
    targets = torch.stack([torch.from_numpy(spots(maps[t].detach().numpy(), sigma, subjects)) for t in chosen])
    sharp = (maps[chosen].double() - targets).square().mean()
    back = brought_back(moved[chosen].double()[None], drawn)[0]
    same = (maps[chosen].double() - back).square().mean()
    return sharp, same, weights[0] * sharp + weights[1] * same


def most_voted(pictures, count):
    """The tokens that most pictures chose."""
    votes = {}
    for chosen in pictures:
        for token in chosen:
            votes[token] = votes.get(token, 0) + 1
    return sorted(votes, key=lambda token: (-votes[token], token))[:count]


def place(maps, drawn, side=512):
    """(row, column), 0…1, of one token's greatest pixel in the average of its warped [version height width]."""
    large = F.interpolate(maps.double()[:, None], size=(side, side), mode="bilinear", align_corners=False)
    total, shown = torch.zeros(side, side), torch.zeros(side, side)
    for one, warp in zip(large, drawn, strict=True):
        total = total + brought_back(one[None], warp)[0, 0]
        shown = shown + brought_back(torch.ones_like(one[None]), warp)[0, 0]
    average = torch.where(shown == 0, 0.0, total / shown)
    row, column = divmod(int(average.argmax()), side)
    return (row + 0.5) / side, (column + 0.5) / side


# Its table of Human3.6M's sides, taken one pair after the other.
SIDES = [(1, 6), (2, 7), (3, 8), (4, 9), (5, 10)]
SIDES += [(17, 25), (18, 26), (19, 27), (20, 28), (21, 28), (22, 30), (23, 31)]


def other_side(points):
    order = list(range(32))
    for a, b in SIDES:
        order[a] = b
        order[b] = a
    return points[:, order]


def score(kind, fit_x, fit_y, fit_seen, x, y, seen):
    """The value of one of the five, from keypoints [item keypoint 2] and landmarks, all in [0, 1]."""
    inputs, wanted = fit_x.reshape(len(fit_x), -1) - 0.5, fit_y.reshape(len(fit_y), -1) - 0.5
    weights = np.zeros((inputs.shape[1], wanted.shape[1]))
    if kind == "orientation_invariant":
        while True:
            weights = np.linalg.inv(inputs.T @ inputs) @ inputs.T @ wanted
            told = (inputs @ weights).reshape(len(inputs), -1, 2)
            turned = other_side(wanted.reshape(told.shape))
            here = np.linalg.norm(told - wanted.reshape(told.shape), axis=2).mean(1)
            there = np.linalg.norm(told - turned, axis=2).mean(1)
            if (here > there).sum() <= 10:
                break
            wanted = np.where((here > there)[:, None], turned.reshape(wanted.shape), wanted)
    else:
        for column in range(wanted.shape[1]):
            rows = fit_seen[:, column // 2] if kind in ("visible", "mean_average_error") else slice(None)
            own = inputs[rows]
            weights[:, column] = np.linalg.pinv(own.T @ own) @ own.T @ wanted[rows, column]
    values = []
    for flat, truth, known in zip(x.reshape(len(x), -1), y, seen, strict=True):
        told = ((flat - 0.5) @ weights + 0.5).reshape(-1, 2)
        away = np.linalg.norm(told - truth, axis=1)
        if kind == "inter_eye_distance":
            values.append((away / np.linalg.norm(truth[0] - truth[1])).mean())
        elif kind == "visible":
            values.append((away * known).sum() / known.sum())
        elif kind == "mean_average_error":
            values.append((256 * away * known).sum())
        elif kind == "pck":
            values.append((256 * away < 6).mean())
        else:
            turned = np.linalg.norm(other_side(told[None])[0] - truth, axis=1)
            values.append(128 * min(away.mean(), turned.mean()))
    return float(np.mean(values))
