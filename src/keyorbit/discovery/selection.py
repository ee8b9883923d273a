"""Which tokens became keypoints: sharp and repeatable ones, whose views agree, far from one another."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.geometry.alignment import Form, repeatability, symmetric_pairs
from keyorbit.geometry.heatmaps import gaussian_kl

__all__ = ["Selection", "choose_tokens", "furthest_point_sampling", "gaussian_kl", "select_tokens"]


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen tokens, the best first, and what all tokens were ranked by.

    Attributes:
        tokens: indices of the keypoints among all tokens, [keypoint].
        sharpness: mean KL divergence of the heatmaps from a Gaussian, [token], nats; smaller is better. None for a
            discovery by constellation, which ranks by evidence.
        agreement: mean reprojection error, [token], sides of the view; smaller is better. None likewise.
        evidence: of the views at the tokens' places, mean over objects, [token], nats a view; larger is better. Only of
            a discovery by constellation.
        stray: how far a token is from its place, root mean square over objects, [token]: world units, or radii with a
            constellation. None for single views.
        pairs: keypoints, by their place among ``tokens``, that are each other's mirror image, such as left and right
            legs.
        places: of all tokens in the constellation, [token 3], radii.
        form: of the object that has them there.
    """

    tokens: Int[Tensor, " keypoint"]
    sharpness: Float[Tensor, " token"] | None = None
    agreement: Float[Tensor, " token"] | None = None
    evidence: Float[Tensor, " token"] | None = None
    stray: Float[Tensor, " token"] | None = None
    pairs: tuple[tuple[int, int], ...] = ()
    places: Float[Tensor, "token 3"] | None = None
    form: Form | None = None


def furthest_point_sampling(
    points: Float[Tensor, "item token dim"],
    count: int,
    candidates: Int[Tensor, " candidate"] | None = None,
    start: int | None = None,
) -> Int[Tensor, " keypoint"]:
    """Choose tokens one by one, each the furthest from those already chosen: their indices, in that order.

    The distance of two tokens is the mean over the items of their distance in each item. `candidates` are the
    tokens to choose from (default all), `start` the first chosen (default the first candidate). Ties go to
    the earlier candidate. Source: Eldar et al. 1997; StableKeypoints uses it so on one image.
    Raises ValueError when count is not within 1 … candidates, or start is no candidate.
    """
    pool = torch.arange(points.shape[1], device=points.device) if candidates is None else candidates
    pool = pool.to(points.device)
    if not 1 <= count <= len(pool):
        raise ValueError(f"{count} tokens cannot be chosen from {len(pool)}: ask for 1 up to all")
    current = 0 if start is None else _index_of(pool, start)
    chosen_points = points[:, pool]
    # The matmul form of cdist loses half the digits of small distances, and ties with them.
    pairwise = torch.cdist(chosen_points, chosen_points, compute_mode="donot_use_mm_for_euclid_dist")
    distance = pairwise.mean(dim=0)
    nearest = torch.full_like(distance[0], torch.inf)
    picks = [torch.full((1,), current, device=pool.device)]
    taken = torch.zeros_like(nearest, dtype=torch.bool)
    for _ in range(count - 1):
        taken = taken.scatter(0, picks[-1], True)
        nearest = torch.minimum(nearest, distance.index_select(0, picks[-1])[0])
        picks.append(nearest.masked_fill(taken, -torch.inf).argmax(0, keepdim=True))
    return pool[torch.cat(picks)]


def select_tokens(
    heatmaps: Float[Tensor, "item view token height width"],
    points: Float[Tensor, "item token dim"],
    reprojection: Float[Tensor, "item token"],
    count: int,
    candidates: int | None = None,
    sigma: float = 2.0,
    off_object: Float[Tensor, "item token"] | None = None,
) -> Selection:
    """Keep the `count` tokens that are sharp, agree across views and lie apart. Deterministic.

    Tokens are ranked by their KL to a Gaussian (`sigma` in pixels), by their reprojection error and, where
    given, by the share of their heatmaps beside the object; the best of the summed ranks, `candidates` of them
    (default 2.5·count, as StableKeypoints' 25 for 10; at most all), go through furthest point sampling,
    starting from the best. In space, of two or more items, that samples the tokens' places on the mean object
    (see `keyorbit.geometry.alignment.repeatability`): noise does not make a token look far from the others. NaN ranks
    last.
    With one view, points are 2D and all errors 0: sharpness decides alone, as in StableKeypoints.
    Raises ValueError when count is not within 1 … tokens, or above candidates.
    """
    # A choice has no gradient.
    sharpness = gaussian_kl(heatmaps.detach(), sigma).mean(dim=1)
    return choose_tokens(sharpness, points, reprojection, count, candidates, off_object)


def choose_tokens(
    sharpness: Float[Tensor, "item token"],
    points: Float[Tensor, "item token dim"],
    reprojection: Float[Tensor, "item token"],
    count: int,
    candidates: int | None = None,
    off_object: Float[Tensor, "item token"] | None = None,
) -> Selection:
    """The same where the heatmaps are gone: `sharpness` is their KL to a Gaussian, averaged over each item's views.

    Raises ValueError as `select_tokens`.
    """
    tokens = points.shape[1]
    if not 1 <= count <= tokens:
        raise ValueError(f"{count} keypoints cannot be chosen from {tokens} tokens: ask for 1 to {tokens}")
    keep = min(tokens, usual_candidates(count) if candidates is None else candidates)
    if keep < count:
        raise ValueError(f"{keep} candidates are fewer than the {count} keypoints: keep at least as many")
    blur, agreement = sharpness.detach().mean(dim=0), reprojection.detach().mean(dim=0)
    rank = _ranks(blur) + _ranks(agreement)
    if off_object is not None:
        rank = rank + _ranks(off_object.detach().mean(dim=0))
    pool = rank.argsort(stable=True)[:keep]
    points = points.detach().nan_to_num()
    if points.shape[-1] < 3 or len(points) < 2:
        return Selection(furthest_point_sampling(points, count, pool), blur, agreement)
    middle, stray = repeatability(points)
    picks = furthest_point_sampling(middle[None], count, pool)
    pairs = tuple(symmetric_pairs(middle[picks], stray[picks]))
    return Selection(picks, blur, agreement, stray=stray, pairs=pairs)


def usual_candidates(count: int) -> int:
    """From how many good tokens ``count`` are taken by distance: 2.5 times as many, as StableKeypoints' 25 for 10."""
    return -(-5 * count // 2)


def _ranks(values: Float[Tensor, " token"]) -> Int[Tensor, " token"]:
    """How many values are smaller: equals share a rank, so the order of the tokens cannot decide."""
    values = values.nan_to_num(nan=torch.inf)
    return (values[:, None] > values).sum(dim=1)


def _index_of(pool: Tensor, token: int) -> int:
    where = (pool == token).nonzero()
    if not len(where):
        raise ValueError(f"token {token} is not among the candidates: start from one of them")
    return int(where[0, 0])
