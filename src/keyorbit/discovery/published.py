"""StableKeypoints' choices as its authors published them, beside ours: pure functions of maps and places.

Source: Hedlin et al. 2024, Unsupervised Keypoints from Pretrained Diffusion Models; github ubc-vision/StableKeypoints,
ptp_utils.py (ranking, furthest points), optimize.py (losses), keypoint_regressor.py (votes). Which of them a
discovery uses is :data:`keyorbit.discovery.choices.Published`.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.discovery.weights import Strategy
from keyorbit.geometry.heatmaps import at_least_float32, subject_spots
from keyorbit.geometry.warps import Warp, unwarp

# Added to every pixel of the Gaussians, so that their logarithm is finite.
_FLOOR = 1e-5


def ranking(
    maps: Float[Tensor, "*batch height width"], sigma: float = 2.0, subjects: int = 1
) -> Float[Tensor, "*batch"]:
    """KL divergence of the softmax over each map's pixels from its spots, nats; smaller is better.

    The softmax is of the map itself, 0…1: a low map comes out flat, and is worse than a high one of the same form.
    :func:`keyorbit.geometry.heatmaps.gaussian_kl` divides a map by its sum, which leaves the form alone.
    """
    target = (subject_spots(maps, sigma, subjects) + _FLOOR).flatten(-2)
    target = target / target.sum(-1, keepdim=True)
    return (target * (target.log() - _log_softmax(maps))).sum(-1)


def entropy(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch"]:
    """Entropy of the softmax over each map's pixels, nats; smaller is better. The strategy ``entropy``."""
    logarithms = _log_softmax(maps)
    return -(logarithms.exp() * logarithms).sum(-1)


def candidates(
    maps: Float[Tensor, "token height width"],
    count: int,
    strategy: Strategy = "gaussian",
    sigma: float = 2.0,
    subjects: int = 1,
) -> Int[Tensor, " candidate"]:
    """The ``count`` tokens of one picture that may be chosen, the best first; ``consistent``: always the first ones."""
    if strategy == "consistent":
        return torch.arange(min(count, len(maps)), device=maps.device)
    scores = entropy(maps) if strategy == "entropy" else ranking(maps, sigma, subjects)
    return scores.argsort(stable=True)[:count]


def furthest_from_pair(
    places: Float[Tensor, "token 2"], count: int, pool: Int[Tensor, " candidate"]
) -> Int[Tensor, " keypoint"]:
    """Furthest point sampling that begins with the two candidates that are the furthest apart; indices of tokens.

    Ties go to the earlier candidate. :func:`keyorbit.discovery.selection.furthest_point_sampling` begins with the best.
    Raises ValueError when count is not within 1 … candidates.
    """
    size = len(pool)
    if not 1 <= count <= size:
        raise ValueError(f"{count} tokens cannot be chosen from {size}: ask for 1 up to all")
    here = places[pool.to(places.device)]
    distance = (here[:, None] - here).square().sum(-1).sqrt()
    upper = torch.ones_like(distance, dtype=torch.bool).triu(1)
    flat = distance.masked_fill(~upper, -1.0).flatten().argmax() if size > 1 else torch.zeros_like(pool[0])
    picks = [flat // size, flat % size][: min(count, size)]
    taken = torch.zeros(size, dtype=torch.bool, device=distance.device)
    nearest = torch.full_like(distance[0], torch.inf)
    for number in range(count):
        if number >= len(picks):
            picks.append(nearest.masked_fill(taken, -torch.inf).argmax())
        nearest = torch.minimum(nearest, distance.index_select(0, picks[number][None])[0])
        taken = taken.index_fill(0, picks[number][None], True)
    return pool.to(places.device)[torch.stack(picks)]


def voted(
    chosen: Sequence[Int[Tensor, " keypoint"]] | Int[Tensor, "picture keypoint"], count: int
) -> Int[Tensor, " keypoint"]:
    """The ``count`` tokens that were chosen in most pictures, most votes first; ties go to the smaller number.

    Fewer where fewer have a vote. (The published code leaves ties to a sort that is not stable.)
    """
    tokens: Tensor
    tokens, votes = torch.unique(torch.cat([one.flatten() for one in chosen]), return_counts=True)
    return tokens[votes.argsort(descending=True, stable=True)[:count]]


def equivariance(
    maps: Float[Tensor, "*batch token height width"],
    warped_maps: Float[Tensor, "*batch token height width"],
    warp: Warp,
) -> Float[Tensor, ""]:
    """Mean square between the maps of pictures and those of the warped pictures, brought back; over all pixels.

    What the warped picture does not show is 0 there, and the map is to be 0 there too.
    :func:`keyorbit.discovery.losses.equivariance` counts shown pixels only.
    """
    return F.mse_loss(unwarp(warped_maps, warp), maps)


def _log_softmax(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch pixel"]:
    return at_least_float32(maps).flatten(-2).log_softmax(-1)
