import math

import pytest
import torch

from keyorbit.evaluation import metrics

# Two pictures of three landmarks, the first two the eyes, 0.5 apart in the first picture and 0.25 in the second.
TRUTH = torch.tensor([[[0.25, 0.5], [0.75, 0.5], [0.5, 0.75]], [[0.5, 0.5], [0.75, 0.5], [0.5, 0.75]]])
# Distances 0, 0.05, 0.1 and then 0.02, 0, 0.
OFFSETS = torch.tensor([[[0, 0], [0.03, 0.04], [0, 0.1]], [[0.02, 0], [0, 0], [0, 0]]])
PREDICTED = TRUTH + OFFSETS


def test_inter_eye_error_by_hand():
    found = metrics.inter_eye_error(PREDICTED, TRUTH)
    assert found.item() == pytest.approx((0.15 / 3 / 0.5 + 0.02 / 3 / 0.25) / 2)
    # Without its third landmark the first picture has 0.05 / 2; without an eye the second one does not count.
    mask = torch.tensor([[True, True, False], [True, False, True]])
    assert metrics.inter_eye_error(PREDICTED, TRUTH, mask=mask).item() == pytest.approx(0.05 / 2 / 0.5)
    # Other landmarks can be the eyes: 1 and 2 are √2/4 apart.
    first = metrics.inter_eye_error(PREDICTED[:1], TRUTH[:1], eyes=(1, 2))
    assert first.item() == pytest.approx(0.15 / 3 / (math.sqrt(2) / 4), rel=1e-5)


def test_visible_error_averages_pictures_not_landmarks():
    mask = torch.tensor([[True, False, True], [True, False, False]])
    assert metrics.visible_error(PREDICTED, TRUTH, mask).item() == pytest.approx((0.1 / 2 + 0.02) / 2)
    assert metrics.point_error(PREDICTED, TRUTH, mask).item() == pytest.approx(0.12 / 3)
    hidden = mask & torch.tensor([[True], [False]])
    assert metrics.visible_error(PREDICTED, TRUTH, hidden).item() == pytest.approx(0.1 / 2)


def test_mean_average_error_is_a_sum_in_pixels():
    mask = torch.tensor([[False, True, True], [True, True, True]])
    assert metrics.mean_average_error(PREDICTED, TRUTH, mask).item() == pytest.approx(256 * (0.15 + 0.02) / 2)
    twice = metrics.mean_average_error(PREDICTED.repeat(1, 2, 1), TRUTH.repeat(1, 2, 1), size=100.0)
    assert twice.item() == pytest.approx(2 * 100 * (0.15 + 0.02) / 2)
    hidden = torch.tensor([[False, False, True], [False, False, False]])
    assert metrics.mean_average_error(PREDICTED, TRUTH, hidden).item() == pytest.approx(25.6 / 2)


def test_pck_at_pixels_excludes_its_limit():
    # 0.02 is 5.12 pixels of 256, 0.05 is 12.8.
    assert metrics.pck_at_pixels(PREDICTED, TRUTH).item() == pytest.approx((1 / 3 + 1) / 2)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert metrics.pck_at_pixels(PREDICTED, TRUTH, mask).item() == pytest.approx((1 / 2 + 1) / 2)
    exact = torch.zeros(1, 1, 2)
    assert metrics.pck_at_pixels(exact + torch.tensor([0.5, 0.0]), exact, pixels=4.0, size=8.0).item() == 0
    assert metrics.pck_at_pixels(exact + torch.tensor([0.5, 0.0]), exact, pixels=5.0, size=8.0).item() == 1


def test_orientation_invariant_error_by_hand():
    # In the second picture the eyes come out exchanged: as they are 0.25 each and 0; exchanged 0.02, 0 and 0.
    confused = PREDICTED.clone()
    confused[1] = confused[1, [1, 0, 2]]
    found = metrics.orientation_invariant_error(confused, TRUTH, swaps=[(0, 1)])
    assert found.item() == pytest.approx(128 * (0.15 / 3 + 0.02 / 3) / 2, rel=1e-5)
    mask = torch.tensor([[True, True, True], [False, False, True]])
    masked = metrics.orientation_invariant_error(confused, TRUTH, [(0, 1)], mask, size=1.0)
    assert masked.item() == pytest.approx((0.15 / 3 + 0) / 2, rel=1e-5)
    # A picture that is half confused is not forgiven.
    half = TRUTH[:, [0, 1, 2, 0, 1]].clone()
    truth = half.clone()
    half[:, [0, 1]] = half[:, [1, 0]]
    assert metrics.orientation_invariant_error(half, truth, [(0, 1), (3, 4)]).item() > 10


def test_the_swaps_of_human36m_are_an_exchange_of_sides():
    right, left = {1, 2, 3, 4, 5, *range(24, 32)}, {*range(6, 11), *range(16, 24)}
    members = [member for pair in metrics.HUMAN36M_SWAPS for member in pair]
    assert len(members) == len(set(members)) == 26
    assert {frozenset(pair) & right for pair in map(frozenset, metrics.HUMAN36M_SWAPS)} == {
        frozenset({j}) for j in right
    }
    assert set(members) == right | left
    # Joint for joint: each limb's joints come in the same order on both sides.
    assert all(abs(a - b) in (5, 8) for a, b in metrics.HUMAN36M_SWAPS)
    truth = torch.rand(3, 32, 2, generator=torch.Generator().manual_seed(0))
    mirrored = truth.clone()
    for a, b in metrics.HUMAN36M_SWAPS:
        mirrored[:, a], mirrored[:, b] = truth[:, b], truth[:, a]
    assert metrics.orientation_invariant_error(mirrored, truth).item() == 0
    # The original's pair (21, 28) is no exchange.
    with pytest.raises(ValueError, match="each named once"):
        metrics.orientation_invariant_error(mirrored, truth, swaps=[(20, 28), (21, 28)])
    with pytest.raises(ValueError, match="below 32"):
        metrics.orientation_invariant_error(mirrored, truth, swaps=[(20, 32)])


def test_the_oriented_fit_finds_a_map_behind_exchanged_sides():
    generator = torch.Generator().manual_seed(3)
    keypoints = torch.rand(200, 4, 2, generator=generator, dtype=torch.float64)
    linear = torch.randn(5, 8, 2, generator=generator, dtype=torch.float64)
    truth = metrics.apply_landmark_map(linear, keypoints)
    swaps = [(0, 1), (2, 3)]
    confused = truth.clone()
    confused[:60] = truth[:60][:, [1, 0, 3, 2, 4]]
    mask = torch.rand(200, 5, generator=generator) > 0.1
    spoilt = torch.where(mask[..., None], confused, confused + 9)
    found = metrics.fit_oriented_landmark_map(keypoints, spoilt, swaps, mask, ridge=1e-12, tolerated=0)
    assert torch.allclose(found, linear, atol=1e-6)
    plain = metrics.fit_landmark_map(keypoints, confused)
    assert not torch.allclose(plain, linear, atol=0.1)
    # Nobody is turned round while no more than the tolerated number would be.
    assert torch.equal(metrics.fit_oriented_landmark_map(keypoints, confused, swaps, tolerated=200), plain)


@pytest.mark.parametrize(
    "score",
    [
        metrics.inter_eye_error,
        metrics.visible_error,
        metrics.mean_average_error,
        metrics.pck_at_pixels,
        lambda p, t, mask: metrics.orientation_invariant_error(p, t, [(0, 1)], mask),
    ],
)
def test_what_a_mask_hides_has_no_say(score):
    mask = torch.tensor([[True, True, False], [True, True, True]])
    spoilt = torch.where(mask[..., None], PREDICTED, torch.tensor(torch.nan))
    assert torch.equal(score(spoilt, TRUTH, mask=mask), score(PREDICTED, TRUTH, mask=mask))
    with pytest.raises(ValueError, match="nothing to average"):
        score(PREDICTED, TRUTH, mask=torch.zeros_like(mask))
