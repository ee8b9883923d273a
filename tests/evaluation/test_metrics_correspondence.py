import pytest
import torch

from keyorbit.evaluation import metrics


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_label_free(keypoints, mask, reference):
    hits = []
    for i, item in enumerate(keypoints):
        for k, point in enumerate(keypoints[reference]):
            if i != reference and mask[reference, k] and mask[i, k]:
                candidates = [j for j in range(len(item)) if mask[i, j]]
                hits.append(min(candidates, key=lambda j: (item[j] - point).norm().item()) == k)
    return sum(hits) / len(hits)


def test_label_free_correspondence_by_hand():
    reference = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    near = reference + torch.tensor([0.2, 0.3])
    # Keypoints 0 and 1 have changed places: 2 alone is the nearest of its namesake.
    changed = near[[1, 0, 2]]
    keypoints = torch.stack([reference, near, changed])
    assert metrics.label_free_correspondence(keypoints).item() == pytest.approx((3 + 1) / 6)
    # From the changed item's side both others are changed.
    assert metrics.label_free_correspondence(keypoints, reference=2).item() == pytest.approx(2 / 6)
    assert metrics.label_free_correspondence(keypoints, reference=-1).item() == pytest.approx(2 / 6)
    # With the changed item's keypoint 2 unknown only wrong ones are left there. With its 0 unknown, its 1 is nearest
    # to the reference's 1, at 0.85, as 2 is at 1.24.
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[2, 2] = False
    assert metrics.label_free_correspondence(keypoints, mask).item() == pytest.approx(3 / 5)
    mask[2] = torch.tensor([False, True, True])
    assert metrics.label_free_correspondence(keypoints, mask).item() == pytest.approx((3 + 2) / 5)


@pytest.mark.parametrize("seed", range(4))
def test_label_free_correspondence_matches_the_loops(seed):
    keypoints = draw(1, 6, 3, seed=seed) + 0.7 * draw(5, 6, 3, seed=seed + 10)
    mask = torch.rand(5, 6, generator=torch.Generator().manual_seed(seed)) > 0.2 * seed
    found = metrics.label_free_correspondence(keypoints, mask, reference=seed).item()
    assert found == pytest.approx(slow_label_free(keypoints, mask, seed))


def test_the_two_scores_called_das_differ():
    # Two keypoints that stay where they are while the landmarks below them change places.
    keypoints = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).expand(2, 2, 2)
    landmarks = torch.stack([keypoints[0], keypoints[0].flip(0)])
    assert metrics.label_free_correspondence(keypoints).item() == 1
    assert metrics.dual_alignment_score(keypoints, landmarks).item() == 0
    # One needs a common frame, the other does not.
    turned = torch.stack([landmarks[0], -landmarks[0] + torch.tensor([1.0, 0.0])])
    assert metrics.label_free_correspondence(turned).item() == 0
    assert metrics.dual_alignment_score(turned, turned).item() == 1


def test_label_free_correspondence_needs_two_items_that_share_a_keypoint():
    with pytest.raises(ValueError, match="two or more"):
        metrics.label_free_correspondence(draw(1, 3, 3))
    apart = torch.tensor([[True, False], [False, True]])
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.label_free_correspondence(draw(2, 2, 3), apart)


def motions(count, scale=1.0):
    q, _ = torch.linalg.qr(draw(count, 3, 3, seed=7))
    motion = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    motion[:, :3, :3] = scale * q * torch.linalg.det(q)[:, None, None]
    motion[:, :3, 3] = draw(count, 3, seed=8)
    return motion


def move(points, motion):
    return torch.cat([points, torch.ones_like(points[..., :1])], -1) @ motion.mT[..., :3]


def test_repeatability_by_hand():
    # A quarter about z and a shift along x: (1, 0, 0) goes to (5, 1, 0), and (0, 2, 0) to (3, 0, 0).
    motion = torch.tensor([[[0.0, -1.0, 0.0, 5.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]])
    keypoints = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    moved = torch.tensor([[[3.0, 0.0, 0.1], [5.0, 1.0, 0.0], [5.0, 1.0, 0.25], [0.0, 0.0, 0.0]]])
    assert metrics.repeatability(keypoints, moved, motion, 0.2).item() == pytest.approx(2 / 4)
    # The limit itself is too far.
    assert metrics.repeatability(keypoints, moved, motion, 0.25).item() == pytest.approx(2 / 4)
    assert metrics.repeatability(keypoints, moved, motion, 0.3).item() == pytest.approx(3 / 4)
    mask, moved_mask = torch.tensor([[True, False]]), torch.tensor([[True, True, False, False]])
    assert metrics.repeatability(keypoints, moved, motion, 0.2, moved_mask=moved_mask).item() == 1
    assert metrics.repeatability(keypoints, moved, motion, 0.2, mask, moved_mask).item() == 0.5
    assert metrics.repeatability(keypoints, moved, motion, 9.0, mask & ~mask, moved_mask).item() == 0
    with pytest.raises(ValueError, match="nothing to average"):
        metrics.repeatability(keypoints, moved, motion, 0.2, moved_mask=moved_mask & ~moved_mask)


def test_repeatability_of_a_known_motion():
    keypoints, motion = draw(3, 9, 3), motions(3, scale=2.0)
    moved = move(keypoints, motion)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert metrics.repeatability(keypoints, moved[:, order], motion, 1e-9).item() == 1
    assert metrics.repeatability(keypoints, keypoints, motion, 0.05).item() < 0.1
    # Planted: a third of the keypoints land elsewhere.
    moved[:, 6:] += 50
    assert metrics.repeatability(keypoints, moved, motion, 1e-6).item() == pytest.approx(2 / 3)
    # It is the same asked backwards.
    backwards = metrics.repeatability(moved, keypoints, torch.linalg.inv(motion), 1e-6)
    assert backwards.item() == pytest.approx(2 / 3)


def test_keypoints_in_one_spot_are_not_found_again_as_themselves():
    """A collapsed set meets the same index within a threshold, and USIP's measure; it is not nearest to itself."""
    motion = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    motion[:, :3, 3] = torch.tensor([0.3, -0.1, 0.2])
    keypoints = 5 * torch.eye(6, 3, dtype=torch.float64).repeat(3, 1, 1) + torch.arange(6.0)[:, None]
    moved = keypoints + motion[:, None, :3, 3]
    assert metrics.distinct_repeatability(keypoints, moved, motion, 1e-9).item() == 1
    moved[1, 4] += 0.2
    assert metrics.distinct_repeatability(keypoints, moved, motion, 0.19).item() == pytest.approx(17 / 18)
    assert metrics.distinct_repeatability(keypoints, moved, motion, 0.35).item() == 1
    moved[2, [0, 1]] = moved[2, [1, 0]]
    assert metrics.distinct_repeatability(keypoints, moved, motion, 99.0).item() == pytest.approx(16 / 18)
    spot, again = (1e-3 * torch.rand(3, 6, 3, generator=torch.Generator().manual_seed(s)).double() for s in (0, 1))
    again = again + motion[:, None, :3, 3]
    went = spot + motion[:, None, :3, 3]
    assert metrics.repeatability(spot, again, motion, 0.1).item() == metrics.pck(again, went, 0.1).item() == 1
    assert metrics.distinct_repeatability(spot, again, motion, 0.1).item() < 0.5
