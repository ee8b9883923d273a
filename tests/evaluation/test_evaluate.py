"""The evaluation knows perfect keypoints from bad ones, and says None where there is no truth."""

from dataclasses import replace

import pytest
import torch

from helpers.worlds import CAMERAS, detections, make_world, seen_by
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion import recording
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.evaluation.evaluate import detect_each, evaluate
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.objects.framing import Framing


def test_the_fit_comes_from_the_objects_given_for_it():
    things, others = make_world(6), make_world(6, seed=5)
    same = evaluate(detections(things), things, detections(things), things)
    # The others' landmarks are combined otherwise: relabelled, their weights mislead.
    relabelled = [replace(x, truth=replace(x.truth, keypoints_3d=x.truth.keypoints_3d.roll(1, 0))) for x in others]
    mixed = evaluate(detections(things), things, detections(others), relabelled)
    assert mixed.landmark_3d > 10 * same.landmark_3d


def test_unknown_landmarks_do_not_count():
    things = make_world()
    spoiled = []
    for thing in things:
        known = thing.truth.known.clone()
        known[2] = False
        places = thing.truth.keypoints_3d.clone()
        places[2] = 100.0
        spoiled.append(replace(thing, truth=replace(thing.truth, keypoints_3d=places, known=known)))
    scores = evaluate(detections(things), spoiled)
    assert scores.landmark_3d < 2e-3
    assert scores.coverage == 1.0


@pytest.mark.parametrize("views", [1, 3, 9])
def test_landmarks_of_some_views_are_measured_there(views):
    things = make_world()
    rows = [i % len(things[0].truth.visible) for i in range(views)]
    told = [
        replace(x, truth=replace(x.truth, keypoints_2d=x.truth.keypoints_2d[rows], visible=x.truth.visible[rows]))
        for x in things
    ]
    scores = evaluate(detections(things), told)
    assert scores.landmark_3d < 2e-3
    assert scores.landmark_2d is None if views == 1 else scores.landmark_2d < 2e-3


def test_hidden_landmarks_do_not_count_in_2d():
    things = make_world()
    hidden = []
    for thing in things:
        places, visible = thing.truth.keypoints_2d.clone(), thing.truth.visible.clone()
        places[3, 1], visible[3, 1] = 100.0, False
        hidden.append(replace(thing, truth=replace(thing.truth, keypoints_2d=places, visible=visible)))
    found = detections(things)
    assert evaluate(found, hidden).landmark_2d < 2e-3
    shown = [replace(x, truth=replace(x.truth, visible=torch.ones_like(x.truth.visible))) for x in hidden]
    assert evaluate(found, shown).landmark_2d > 0.5


def test_without_truth_only_what_needs_none_is_measured():
    things = make_world()
    found = detections(things)
    blind = [replace(thing, truth=None) for thing in things]
    scores = evaluate(found, blind)
    assert scores.landmark_3d is None
    assert scores.dual_alignment is None
    assert scores.coverage is None
    assert scores.reprojection < 1e-4
    assert scores.objects[0].landmark_3d is None


def test_the_input_cameras_are_measured():
    generator = torch.Generator().manual_seed(3)
    things, found = [], []
    for i, thing in enumerate(make_world()):
        points = 0.6 * torch.rand(12, 3, generator=generator) - 0.3
        seen = orbit_cameras(0.0, 10.0 * i).project(points)[0]
        score = torch.full((12,), float(i != 0))
        flat = Keypoints2D(CAMERAS.project(points), torch.ones(6, 12), CAMERAS, seen, score)
        (detection,) = detections([thing])
        found.append(replace(detection, input_camera=seen_by(flat, flat.triangulate())))
        things.append(replace(thing, input_elevation_deg=10.0 * i + 4.0))
    scores = evaluate(found, things).input
    assert scores.elevation_error_deg == pytest.approx(4.0, abs=0.1)
    assert scores.reprojection < 1e-3
    # The first has no place on its picture: it is counted, as infinitely wrong.
    assert (scores.elevations, scores.unknown) == (6, 1)
    hopeless = [found[0]] * 4 + found[4:]
    assert evaluate(hopeless, things).input.elevation_error_deg is None
    assert evaluate(detections(things), things).input is None


def test_landmarks_are_drawn_onto_the_input_picture_with_the_camera_that_was_found():
    things, found = [], []
    for i, (thing, detection) in enumerate(zip(make_world(), detections(make_world()), strict=True)):
        truth, camera = thing.truth, orbit_cameras(0.0, 10.0 * i)
        flat = replace(
            detection.keypoints_2d, input_xy=camera.project(truth.keypoints_3d)[0], input_score=torch.ones(5)
        )
        found.append(replace(detection, input_camera=seen_by(flat, detection.keypoints_3d)))
        true = truth.keypoints_2d.clone()
        true[0] = camera.project(truth.keypoints_3d)[0] + torch.tensor([0.0, 0.02])
        # What the picture does not show does not count.
        true[0, 0], visible = 9.0, truth.visible.clone()
        visible[0, 0] = False
        things.append(replace(thing, truth=replace(truth, keypoints_2d=true, visible=visible)))
    assert evaluate(found, things).input.landmark_2d == pytest.approx(0.02, abs=2e-3)
    # The object is beyond the middle square, in whose unit square the landmarks are.
    beyond = Framing((40, 20), (20, 0, 40, 20), (20, 0, 40, 20))
    moved = [
        replace(
            one,
            framing=beyond,
            input_camera=replace(one.input_camera, cameras=one.input_camera.cameras.zoomed(1.0, (-0.5, 0.0))),
        )
        for one in found
    ]
    assert evaluate(moved, things).input.landmark_2d == pytest.approx(0.02, abs=2e-3)
    unseen = [replace(t, truth=replace(t.truth, visible=torch.zeros_like(t.truth.visible))) for t in things]
    assert evaluate(found, unseen).input.landmark_2d is None
    blind = [replace(thing, truth=None) for thing in things]
    assert evaluate(found, blind).input.landmark_2d is None


def test_objects_are_recorded_once_for_several_tokens(backend, objects, monkeypatch):
    """Each detector finds what it finds alone, and the progress is told object by object."""
    tokens = {
        name: untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3, seed=seed))
        for name, seed in (("a", 0), ("b", 1))
    }
    detectors = {name: KeypointDetector(backend, some, DetectConfig(1)) for name, some in tokens.items()}
    done, seen = [], []
    record = recording.record_together

    def counted(things, *args):
        seen.extend(thing.name for thing in things)
        return record(things, *args)

    monkeypatch.setattr(recording, "record_together", counted)
    found = detect_each(detectors, objects, lambda i, n: done.append((i, n)))
    assert done == [(i + 1, len(objects)) for i in range(len(objects))]
    assert seen == [thing.name for thing in objects]
    for name, some in tokens.items():
        alone = KeypointDetector(backend, some, DetectConfig(1)).detect_object(objects[0])
        assert torch.equal(found[name][0].keypoints_2d.xy, alone.keypoints_2d.xy)
        assert torch.equal(found[name][0].keypoints_3d.xyz, alone.keypoints_3d.xyz)


def test_one_object_without_truth_still_has_its_reprojection():
    (thing,) = make_world(1)
    found = evaluate(detections([thing], 0.01), [replace(thing, truth=None)])
    assert 0 < found.measures["reprojection_share"] < 0.05
    assert found.measures["reprojection_px"] == pytest.approx(8 * found.measures["reprojection_share"])
    assert found.landmark_3d is None


def test_landmarks_are_measured_by_name_whatever_their_order():
    def named(things, name=str):
        return [
            replace(x, truth=replace(x.truth, names=tuple(map(name, range(len(x.truth.names)))), pairs=((0, 3),)))
            for x in things
        ]

    def reversed_in(thing):
        truth, last = thing.truth, len(thing.truth.names) - 1
        return replace(
            thing,
            truth=replace(
                truth,
                names=truth.names[::-1],
                pairs=tuple((last - left, last - right) for left, right in truth.pairs),
                keypoints_3d=truth.keypoints_3d.flip(0),
                known=truth.known.flip(0),
                keypoints_2d=truth.keypoints_2d.flip(1),
                visible=truth.visible.flip(1),
            ),
        )

    things, others = named(make_world(6)), named(make_world(6, seed=5))
    found, fitted = detections(things), detections(others)
    expected = evaluate(found, things, fitted, others)
    mixed = [reversed_in(thing) if i % 2 else thing for i, thing in enumerate(things)]
    assert evaluate(found, mixed, fitted, list(map(reversed_in, others))) == expected
    odd = [things[0], *named(things[1:], "part {}".format)]
    with pytest.raises(InputError, match=r"has a landmark '0' and .* has none; what is measured together has the same"):
        evaluate(found, odd, fitted, others)
