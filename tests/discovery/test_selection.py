import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keyorbit.discovery.selection import furthest_point_sampling, gaussian_kl, select_tokens
from keyorbit.geometry.heatmaps import gaussian
from oracles import choice
from oracles import losses as loops


def draw(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(2, 9), st.integers(2, 3))
def test_furthest_point_sampling_matches_the_loops(seed, items, tokens, dim):
    points = draw(items, tokens, dim, seed=seed)
    count = 1 + seed % tokens
    start = seed % 2
    found = furthest_point_sampling(points, count, start=start)
    assert found.tolist() == choice.furthest(points, count, range(tokens), start)


def test_sampling_keeps_to_the_candidates_and_their_order():
    points = draw(2, 9, 3)
    candidates = torch.tensor([7, 2, 5, 0])
    found = furthest_point_sampling(points, 3, candidates)
    assert found.tolist() == choice.furthest(points, 3, [7, 2, 5, 0], 7)
    assert furthest_point_sampling(points, 4, candidates, start=5).tolist()[0] == 5
    assert sorted(furthest_point_sampling(points, 4, candidates).tolist()) == [0, 2, 5, 7]


def test_points_that_coincide_are_not_chosen_twice():
    assert sorted(furthest_point_sampling(torch.zeros(1, 5, 3), 5).tolist()) == [0, 1, 2, 3, 4]


def test_sampling_refuses_what_it_cannot_do():
    points = draw(1, 4, 3)
    for count in (0, 5):
        with pytest.raises(ValueError, match="cannot be chosen"):
            furthest_point_sampling(points, count)
    with pytest.raises(ValueError, match="token 3 is not among"):
        furthest_point_sampling(points, 1, torch.tensor([0, 1]), start=3)


def test_gaussian_kl_matches_the_loops_on_views():
    maps = draw(1, 2, 3, 8, 12) + 0.01
    expected = [[loops.kl(m, 1.5) for m in view] for view in maps[0]]
    assert torch.allclose(gaussian_kl(maps, 1.5)[0], torch.tensor(expected), atol=1e-4)


def scene():
    """Eight tokens in one item: 0-5 sharp, 6 flat, 7 sharp but its views disagree; 0 and 1 lie together."""
    xy = 0.3 + 0.4 * draw(1, 6, 8, 2)
    maps = gaussian(xy, 24, 24, 2.0)
    maps[:, :, 6] = 0.5 + 0.01 * maps[:, :, 6]
    points = torch.tensor([[[float(t), 0.0, 0.0] for t in range(8)]])
    points[0, 1] = points[0, 0] + 0.01
    reprojection = torch.full((1, 8), 0.01) + 0.0001 * torch.arange(8.0)
    reprojection[0, 7] = 0.4
    return maps, points, reprojection


def test_flat_and_disagreeing_tokens_and_twins_are_left_out():
    maps, points, reprojection = scene()
    before = maps.clone(), points.clone(), reprojection.clone()
    found = select_tokens(maps, points, reprojection, 4, candidates=6)
    chosen = found.tokens.tolist()
    assert len(set(chosen)) == 4
    assert not {6, 7} & set(chosen)
    assert not {0, 1} <= set(chosen)
    assert torch.allclose(found.agreement, reprojection[0])
    assert found.sharpness[6] > 2 * found.sharpness[:6].max()
    assert all(torch.equal(a, b) for a, b in zip(before, (maps, points, reprojection), strict=True))


def test_the_best_ranked_token_comes_first_whatever_the_order():
    maps, points, reprojection = scene()
    reprojection[0, 3] = 0.0
    maps[:, :, 3] = gaussian(torch.full((1, 6, 2), 0.5 + 0.5 / 24), 24, 24, 2.0)
    assert select_tokens(maps, points, reprojection, 3).tokens[0] == 3
    order = torch.tensor([4, 3, 6, 0, 7, 2, 5, 1])
    first = select_tokens(maps, points, reprojection, 1).tokens
    shuffled = select_tokens(maps[:, :, order], points[:, order], reprojection[:, order], 1).tokens
    assert order[shuffled].tolist() == first.tolist()
    again = select_tokens(maps, points, reprojection, 3).tokens
    assert torch.equal(again, select_tokens(maps, points, reprojection, 3).tokens)


def test_sharpness_decides_where_agreement_is_equal():
    maps, points, _ = scene()
    maps[:, :, :3] += 0.5
    found = select_tokens(maps, points, torch.full((1, 8), 0.01), 4, candidates=4)
    assert set(found.tokens.tolist()) <= {3, 4, 5, 7}


def test_nan_ranks_last_and_gradients_stop():
    maps, points, reprojection = scene()
    reprojection[0, 0] = torch.nan
    found = select_tokens(maps.requires_grad_(), points, reprojection, 5, candidates=5)
    assert 0 not in found.tokens.tolist()
    assert not found.sharpness.requires_grad


def test_impossible_counts_are_refused():
    maps, points, reprojection = scene()
    with pytest.raises(ValueError, match="9 keypoints cannot be chosen from 8 tokens"):
        select_tokens(maps, points, reprojection, 9)
    with pytest.raises(ValueError, match="3 candidates are fewer than the 4"):
        select_tokens(maps, points, reprojection, 4, candidates=3)
