"""The named metrics of an evaluation: ideal for perfect keypoints, right for planted errors, told apart by name."""

from dataclasses import replace

import pytest
import torch

from helpers.worlds import CAMERAS, LANDMARKS, detections, make_world
from keyorbit.errors import InputError
from keyorbit.evaluation.evaluate import evaluate
from keyorbit.evaluation.measures import MEASURES, motion_of
from keyorbit.evaluation.metrics.iou import geodesic_distances
from keyorbit.objects.framing import Framing

IDEAL_SHARES = (
    *("pck3d_0.1", "spair_pck_per_image_0.1", "spair_pck_per_point_0.1", "skeleton_merger_das"),
    *("sc3k_correspondence", "keypointdetr_hungarian_iou_0.1", "landmark_coverage_0.1"),
)
IDEAL_ERRORS = ("reprojection_px", "reprojection_share", "mpjpe", "n_mpjpe", "p_mpjpe", "nme_box")


def turned(things, angle=1.0):
    """The same objects turned about the vertical."""
    angle = torch.tensor(angle)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    moved = []
    for thing in things:
        places = thing.truth.keypoints_3d @ turn.T
        xy = torch.cat([torch.zeros(1, LANDMARKS, 2), CAMERAS.project(places)])
        moved.append(replace(thing, truth=replace(thing.truth, keypoints_3d=places, keypoints_2d=xy)))
    return moved


def with_surface(things):
    """A surface that has a point at each landmark, and one far off."""
    far = torch.tensor([[0.0, 0.0, 0.9]])
    return [replace(x, truth=replace(x.truth, surface=torch.cat([x.truth.keypoints_3d, far]))) for x in things]


def test_perfect_keypoints_are_ideal_in_every_way():
    things = with_surface(make_world())
    measures = evaluate(detections(things), things).measures
    assert set(measures) == set(MEASURES)
    for name in IDEAL_SHARES:
        assert measures[name] == pytest.approx(1.0), name
    for name in IDEAL_ERRORS:
        assert measures[name] < 5e-3, name
    assert measures["relative_pose_error_median"] < 0.1
    assert measures["keypointnet_geodesic_iou_0.1"] == measures["skeleton_merger_snapped_iou_0.1"] == 1.0
    assert measures["sc3k_inclusivity_0.05"] == 1.0
    # The far point is on no keypoint's side: the keypoints' extent is smaller than the shape's.
    assert measures["sc3k_extent_coverage"] < 0.95


def test_what_the_truth_does_not_allow_is_none():
    things = make_world()
    measures = evaluate(detections(things), things).measures
    for name in ("keypointnet_geodesic_iou_0.1", "sc3k_inclusivity_0.05", "usip_repeatability_0.1"):
        assert measures[name] is None
    blind = evaluate(detections(things), [replace(thing, truth=None) for thing in things]).measures
    assert {name for name, value in blind.items() if value is not None} == {"reprojection_px", "reprojection_share"}


def test_reprojection_is_in_pixels_and_shares_of_the_view():
    things = make_world()
    found = detections(things)
    moved = [replace(d, keypoints_3d=replace(d.keypoints_3d, xyz=d.keypoints_3d.xyz * 1.1)) for d in found]
    measures = evaluate(moved, things).measures
    xy = [CAMERAS.project(1.1 * t.truth.keypoints_3d) - CAMERAS.project(t.truth.keypoints_3d) for t in things]
    expected = float(torch.stack(xy).norm(dim=-1).mean())
    assert measures["reprojection_share"] == pytest.approx(expected, rel=1e-3)
    assert measures["reprojection_px"] == pytest.approx(8 * expected, rel=1e-3)


def test_a_uniform_error_of_scale_is_seen_by_mpjpe_alone():
    things = make_world()
    fit = detections(things)
    grown = [replace(d, keypoints_3d=replace(d.keypoints_3d, xyz=d.keypoints_3d.xyz * 1.2)) for d in fit]
    measures = evaluate(grown, things, fit, things).measures
    assert measures["mpjpe"] > 0.02
    assert measures["n_mpjpe"] < 5e-3
    assert measures["p_mpjpe"] < 5e-3
    # To be 20 % larger does not turn anything.
    assert measures["relative_pose_error_mean"] < 0.1


def test_sc3k_and_skeleton_merger_disagree_about_consistent_but_wrong_places():
    """All keypoints at one landmark of each object, a hair apart: SC3K is content, Skeleton Merger is not."""
    things = make_world()
    apart = 1e-3 * torch.eye(LANDMARKS, 3)
    found = [
        replace(d, keypoints_3d=replace(d.keypoints_3d, xyz=t.truth.keypoints_3d[:1] + apart[:LANDMARKS]))
        for d, t in zip(detections(things), things, strict=True)
    ]
    fixed = [replace(t, truth=replace(t.truth, keypoints_3d=things[0].truth.keypoints_3d)) for t in things]
    same = [replace(d, keypoints_3d=found[0].keypoints_3d) for d in found]
    measures = evaluate(same, fixed).measures
    assert measures["sc3k_correspondence"] > 0.75
    assert measures["skeleton_merger_das"] < 0.7


def test_the_frame_of_an_object_does_not_count():
    things = make_world()
    mixed = [*things[:3], *turned(things[3:])]
    measures = evaluate(detections(mixed), mixed).measures
    assert measures["sc3k_correspondence"] == 1.0
    assert measures["relative_pose_error_mean"] < 0.1


def test_keypoints_that_go_along_are_repeatable():
    things = make_world()
    moved = turned(things)
    first = detections(things)
    followed = evaluate(first, things, moved=(detections(moved), moved)).measures
    assert followed["usip_repeatability_0.1"] == followed["same_index_repeatability_0.1"] == 1.0
    stayed = evaluate(first, things, moved=(first, moved)).measures
    assert stayed["same_index_repeatability_0.1"] < 0.5
    # USIP lets any keypoint answer for any other; the order does not matter to it.
    shuffled = [
        replace(d, keypoints_3d=replace(d.keypoints_3d, xyz=d.keypoints_3d.xyz.flip(0))) for d in detections(moved)
    ]
    reordered = evaluate(first, things, moved=(shuffled, moved)).measures
    assert reordered["usip_repeatability_0.1"] == 1.0
    assert reordered["same_index_repeatability_0.1"] < 0.5


def test_moved_objects_must_be_the_same():
    things = make_world()
    with pytest.raises(InputError, match="same names"):
        evaluate(detections(things), things, moved=(detections(things[1:]), things[1:]))


def test_the_motion_is_what_the_landmarks_did():
    things = make_world()
    moved = turned(things)
    places = [torch.stack([t.truth.keypoints_3d for t in group]) for group in (things, moved)]
    known = torch.ones(places[0].shape[:2], dtype=torch.bool)
    known[:, 0] = False
    places[0][:, 0] = torch.nan
    motion = motion_of(places[0], places[1] + 0.5, known)
    went = places[0] @ motion[:, :3, :3].mT + motion[:, None, :3, 3]
    torch.testing.assert_close(went[:, 1:], places[1][:, 1:] + 0.5, atol=1e-5, rtol=0)


def test_pictures_with_landmarks_but_no_space_are_judged_in_the_picture():
    things, found = [], []
    generator = torch.Generator().manual_seed(5)
    for thing, detection in zip(make_world(), detections(make_world()), strict=True):
        xy = torch.rand(LANDMARKS, 2, generator=generator)
        visible = torch.ones(1, LANDMARKS, dtype=torch.bool)
        box = torch.tensor([[0.5, 0.5]])
        things.append(
            replace(
                thing, truth=replace(thing.truth, keypoints_3d=None, keypoints_2d=xy[None], visible=visible, boxes=box)
            )
        )
        flat = replace(detection.keypoints_2d, input_xy=xy, input_score=torch.ones(LANDMARKS))
        found.append(replace(detection, keypoints_2d=flat))
    # Where the object is beyond the middle square, its places are told in another one than the landmarks.
    flat, beyond = found[0].keypoints_2d, Framing((40, 20), (20, 0, 40, 20), (20, 0, 40, 20))
    moved = replace(flat, input_xy=flat.input_xy - torch.tensor([0.5, 0.0]))
    found[0] = replace(found[0], keypoints_2d=moved, framing=beyond)
    scores = evaluate(found, things)
    assert scores.landmark_3d is None
    assert scores.landmark_2d < 5e-3
    assert scores.measures["spair_pck_per_image_0.1"] == 1.0
    assert scores.measures["mpjpe"] is None
    assert scores.reprojection is not None


def test_ways_along_a_ring_are_longer_than_across():
    angle = torch.linspace(0, 2 * torch.pi, 201)[:-1]
    ring = torch.stack([angle.cos(), angle.sin(), torch.zeros(200)], -1)
    # A second piece, out of reach.
    surface = torch.cat([ring, ring[:20] + torch.tensor([0.0, 0.0, 9.0])])
    found = geodesic_distances(torch.tensor([[1.0, 0.0, 0.0]]), surface, neighbours=2)[0]
    assert float(found[100]) == pytest.approx(torch.pi, rel=1e-3)
    assert found[200:].isinf().all()


def test_an_object_without_known_landmarks_has_no_motion_and_spoils_no_other(generator):
    places = torch.rand(2, 4, 3, generator=generator)
    known = torch.tensor([[True] * 4, [False] * 4])
    motion = motion_of(places, places + 0.5, known)
    torch.testing.assert_close(motion[0, :3, 3], torch.full((3,), 0.5))
    assert motion.isfinite().all()
    assert motion[1, :3, 3].eq(0).all()
