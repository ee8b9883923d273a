import json
import math

import pytest
import torch

from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.geometry.rigs import zero123plus_cameras

POINTS = torch.tensor([[0.1, 0.2, -0.1], [-0.3, 0.0, 0.2], [0.0, -0.1, 0.3]])


def seen(score=1.0):
    cameras = zero123plus_cameras()
    return Keypoints2D(cameras.project(POINTS), torch.full((6, 3), score), cameras)


@pytest.mark.parametrize("robust", [True, False])
def test_triangulate_gives_the_points_back(robust):
    found = seen(0.8).triangulate(robust)
    assert torch.allclose(found.xyz, POINTS, atol=1e-4)
    assert torch.allclose(found.score, torch.full((3,), 0.8), atol=1e-3)
    assert found.reprojection_error.max() < 1e-5
    assert found.residual.shape == (6, 3)


def test_one_wrong_view_is_seen_through_only_when_robust():
    clean = seen()
    xy = clean.xy.clone()
    xy[2, 1] += 0.3
    wrong = Keypoints2D(xy, clean.score, clean.cameras)
    robust, plain = wrong.triangulate(), wrong.triangulate(robust=False)
    assert (robust.xyz - POINTS).norm(dim=-1).max() < 5e-3
    assert (plain.xyz - POINTS).norm(dim=-1).max() > 0.03
    assert robust.residual[2, 1] > 0.25
    assert robust.reprojection_error[1] < 0.005
    assert torch.equal(wrong.xy, xy)


def test_views_that_disagree_score_low():
    noise = 0.3 * torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))
    noise[:, 0] = 0
    clean = seen()
    score = Keypoints2D(clean.xy + noise, clean.score, clean.cameras).triangulate().score
    assert score[0] > 0.99
    assert score[1:].max() < 0.3
    assert ((score >= 0) & (score <= 1)).all()


def test_a_view_without_score_has_no_say():
    clean = seen()
    xy, score = clean.xy.clone(), clean.score.clone()
    xy[4] += 0.4
    score[4] = 0
    found = Keypoints2D(xy, score, clean.cameras).triangulate(robust=False)
    assert torch.allclose(found.xyz, POINTS, atol=1e-4)
    assert found.reprojection_error.max() < 1e-4
    assert torch.allclose(found.score, torch.full((3,), 5 / 6), atol=1e-3)


def planted_views(away, weights):
    """Twelve points that all views mark exactly, then those that six views mark ``away`` [point view] sides beside."""
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    xyz = 0.5 * torch.rand(12 + len(away), 3, generator=generator, dtype=torch.float64) - 0.25
    xy, score = cameras.project(xyz), torch.ones(6, len(xyz), dtype=torch.float64)
    xy[:, 12:, 0] += torch.tensor(away, dtype=torch.float64).T
    score[:, 12:] = torch.tensor(weights, dtype=torch.float64).T
    return Keypoints2D(xy, score, cameras), xyz


def test_two_views_with_half_of_the_weight_have_to_agree():
    """The exact points leave little noise, so that a view 0.02 sides beside does not agree: 0.005 is allowed."""
    beside = 0.02
    cases = [
        # Two views agree, with 0.55 and 0.45 of the weight.
        ([0, 0, beside, beside, beside, beside], [0.55, 0.55, 0.225, 0.225, 0.225, 0.225], True),
        ([0, 0, beside, beside, beside, beside], [0.45, 0.45, 0.275, 0.275, 0.275, 0.275], False),
        # Exactly half is enough.
        ([0, 0, 0, beside, beside, beside], [0.5] * 6, True),
        # One view agrees, with two thirds of the weight.
        ([0, beside, beside, beside, beside, beside], [1.0, 0.1, 0.1, 0.1, 0.1, 0.1], False),
        # A second one without any weight is no help.
        ([0, 0, beside, beside, beside, beside], [1.0, 0.0, 0.1, 0.1, 0.1, 0.1], False),
        # Five agree but for a little, on this and on the far side of what is allowed.
        ([0.0045] * 5 + [beside], [0.5] * 6, True),
        ([0.0055] * 5 + [beside], [0.5] * 6, False),
    ]
    away, weights, expected = zip(*cases, strict=True)
    flat, xyz = planted_views(away, weights)
    found = flat.lift(xyz)
    assert (found.score[:12] > 0.999).all()
    assert tuple((found.score[12:] > 0).tolist()) == expected
    assert (found.visible[:, 12:].sum(0)).tolist() == [2, 2, 3, 1, 1, 5, 0]
    # The same where the points are found first.
    assert (flat.triangulate().score[12:14] > 0).tolist() == [True, False]


def test_a_score_falls_with_the_error_and_ends_at_a_tenth_of_the_side():
    """All views are the same distance beside all points: that much noise agrees with itself, up to 0.1 sides."""
    cameras = zero123plus_cameras().to(dtype=torch.float64)
    xyz = POINTS.double()
    for away, expected in ((0.02, 0.8 * math.exp(-0.16)), (0.09, 0.8 * math.exp(-3.24)), (0.11, 0.0)):
        flat = Keypoints2D(
            cameras.project(xyz) + torch.tensor([0.6, 0.8]) * away, 0.8 * torch.ones(6, 3).double(), cameras
        )
        found = flat.lift(xyz)
        assert found.reprojection_error.tolist() == pytest.approx([away] * 3)
        assert found.score.tolist() == pytest.approx([expected] * 3)


def test_pixels_have_their_centre_at_whole_numbers():
    xy = torch.tensor([[[0.5 / 40, 0.5 / 30], [39.5 / 40, 29.5 / 30]]])
    pixels = Keypoints2D(xy, torch.ones(1, 2)).to_pixels(30, 40)
    assert torch.allclose(pixels, torch.tensor([[[0.0, 0.0], [39.0, 29.0]]]), atol=1e-5)


def test_json_round_trips():
    full = seen()
    full = Keypoints2D(full.xy, full.score, full.cameras, full.xy[0], full.score[0])
    again = Keypoints2D.from_dict(json.loads(json.dumps(full.to_dict())))
    assert torch.equal(again.xy, full.xy)
    assert torch.equal(again.input_xy, full.input_xy)
    assert torch.equal(again.input_score, full.input_score)
    assert torch.equal(again.cameras.world_to_camera, full.cameras.world_to_camera)
    bare = Keypoints2D.from_dict(json.loads(json.dumps(Keypoints2D(full.xy, full.score).to_dict())))
    assert bare.cameras is None
    assert bare.input_xy is None
    points = full.triangulate()
    back = Keypoints3D.from_dict(json.loads(json.dumps(points.to_dict())))
    for name in ("xyz", "score", "reprojection_error", "residual"):
        assert torch.equal(getattr(back, name), getattr(points, name))


def test_what_cannot_be_triangulated_is_refused():
    full = seen()
    with pytest.raises(ValueError, match="without cameras"):
        Keypoints2D(full.xy, full.score).triangulate()
    with pytest.raises(ValueError, match="two or more views"):
        Keypoints2D(full.xy[:1], full.score[:1], full.cameras.select([0])).triangulate()
    with pytest.raises(ValueError, match="6 cameras do not fit 5 views"):
        Keypoints2D(full.xy[:5], full.score[:5], full.cameras)
    with pytest.raises(ValueError, match="'score'"):
        Keypoints2D.from_dict({"xy": full.xy.tolist()})


@pytest.mark.parametrize(("score", "expected"), [((1, 1, 1), 0.03), ((1, 0.1, 0.1), 0.05), ((0, 1, 0.5), 0.01)])
def test_the_error_of_a_point_is_the_weighted_median_of_its_views(score, expected):
    cameras = orbit_cameras([0.0, 60.0, 120.0], [20.0, -10.0, 20.0])
    xy = cameras.project(POINTS[:1])
    xy[:, 0, 0] += torch.tensor([0.05, 0.01, 0.03])
    found = Keypoints2D(xy, torch.tensor(score, dtype=torch.float32)[:, None], cameras).lift(POINTS[:1])
    assert found.reprojection_error.item() == pytest.approx(expected, abs=1e-5)
