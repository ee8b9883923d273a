import pytest
import torch

from keyorbit.evaluation import metrics

# Two pictures: three landmarks with distances 1, 3 and 5; then one known landmark, at distance 2.
TRUTH = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], [[5.0, 5.0], [0.0, 0.0], [0.0, 0.0]]])
PREDICTED = torch.tensor([[[1.0, 0.0], [10.0, 3.0], [3.0, 14.0]], [[5.0, 7.0], [torch.nan, 0.0], [torch.inf, 0.0]]])
KNOWN = torch.tensor([[True, True, True], [True, False, False]])


def test_pck_of_spair_by_hand():
    # Boxes 20 × 30 and 40 × 10: the limits at α = 0.1 are 3 (reached, so correct) and 4.
    boxes = torch.tensor([[20.0, 30.0], [40.0, 10.0]])
    per_image = metrics.pck_per_image(PREDICTED, TRUTH, boxes, 0.1, KNOWN)
    assert per_image.item() == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.pck_per_point(PREDICTED, TRUTH, boxes, 0.1, KNOWN).item() == pytest.approx(3 / 4)
    # The shorter sides, 2 and 1, would let one of four points pass.
    assert metrics.pck_per_point(PREDICTED, TRUTH, boxes.amin(1, keepdim=True).expand(2, 2), 0.1, KNOWN).item() == 0.25


def test_pck_of_spair_does_not_know_the_scale():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(6, 8, 2, generator=generator, dtype=torch.float64)
    predicted = truth + 0.1 * torch.randn(6, 8, 2, generator=generator, dtype=torch.float64)
    boxes = 0.5 + torch.rand(6, 2, generator=generator, dtype=torch.float64)
    for score in (metrics.pck_per_image, metrics.pck_per_point):
        found = score(predicted, truth, boxes, 0.1)
        assert 0.1 < found.item() < 0.9
        assert score(7 * predicted, 7 * truth, 7 * boxes, 0.1) == found
    # With all points known the two agree; they part where pictures have unequal numbers of points.
    assert metrics.pck_per_image(predicted, truth, boxes) == metrics.pck_per_point(predicted, truth, boxes)


def test_normalised_mean_error_by_hand():
    size = torch.tensor([6.0, 4.0])
    found = metrics.normalised_mean_error(PREDICTED, TRUTH, size, KNOWN)
    assert found.item() == pytest.approx((3 / 6 + 2 / 4) / 2)
    first_only = KNOWN & torch.tensor([[True], [False]])
    assert metrics.normalised_mean_error(PREDICTED, TRUTH, size, first_only).item() == pytest.approx(3 / 6)
    assert metrics.normalised_mean_error(3 * PREDICTED, 3 * TRUTH, 3 * size, KNOWN).item() == pytest.approx(
        found.item()
    )


@pytest.mark.parametrize("score", [metrics.pck_per_image, metrics.pck_per_point, metrics.normalised_mean_error])
def test_nothing_known_is_an_error(score):
    size = torch.ones(2) if score is metrics.normalised_mean_error else torch.ones(2, 2)
    with pytest.raises(ValueError, match="nothing to average"):
        score(PREDICTED, TRUTH, size, mask=torch.zeros_like(KNOWN))


def test_a_linear_map_is_found_again_and_applied():
    generator = torch.Generator().manual_seed(1)
    keypoints = torch.rand(30, 3, 2, generator=generator, dtype=torch.float64)
    linear = torch.randn(4, 6, 2, generator=generator, dtype=torch.float64)
    landmarks = metrics.apply_landmark_map(linear, keypoints)
    assert torch.allclose(metrics.fit_landmark_map(keypoints, landmarks, ridge=1e-12), linear, atol=1e-8)
    # About the picture's centre: keypoints there answer the centre, whatever the map.
    centre = torch.full((1, 3, 2), 0.5, dtype=torch.float64)
    assert torch.equal(metrics.apply_landmark_map(linear, centre), torch.full((1, 4, 2), 0.5, dtype=torch.float64))


@pytest.mark.parametrize("fit", [metrics.fit_landmark_map, metrics.fit_landmark_weights])
def test_unknown_landmarks_may_be_nan_in_a_fit(fit):
    generator = torch.Generator().manual_seed(2)
    keypoints, landmarks = torch.rand(2, 30, 4, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(30, 4, generator=generator) > 0.3
    found = fit(keypoints, torch.where(mask[..., None], landmarks, torch.nan), mask)
    assert torch.equal(found, fit(keypoints, landmarks, mask))
    assert not torch.allclose(found, fit(keypoints, landmarks), atol=1e-3)
