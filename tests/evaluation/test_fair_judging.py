"""Objects found the wrong way round bend no fit and are named; symmetric objects are judged modulo their turns."""

import math
from dataclasses import replace
from statistics import median

import pytest
import torch

from helpers.worlds import CAMERAS, make_world
from keyorbit.cli.report import page_figures
from keyorbit.cli.tables import wrong_turn_lines
from keyorbit.detection.detector import Detection
from keyorbit.evaluation import metrics
from keyorbit.evaluation.evaluate import evaluate
from keyorbit.evaluation.figures import told, wrongly_turned
from keyorbit.evaluation.symmetry import ROUND, order_of, turned_truth
from keyorbit.geometry.alignment import turns_by
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objects.dataset import Truth
from keyorbit.output.page.inputs import read_scores
from keyorbit.storage.files import write_json


def about_vertical(degrees):
    return turns_by(torch.tensor(math.radians(degrees)))


def detections(things, noise=0.0, seed=1):
    """Keypoints at the landmarks, but for errors in space."""
    generator, found = torch.Generator().manual_seed(seed), []
    for thing in things:
        places = thing.truth.keypoints_3d
        points = places + noise * torch.randn(places.shape, generator=generator)
        flat = Keypoints2D(CAMERAS.project(points), torch.ones(6, len(points)), CAMERAS)
        space = Keypoints3D(points, torch.ones(len(points)), torch.zeros(len(points)), torch.zeros(6, len(points)))
        picture, views, masks = thing.input_image, thing.views, thing.masks
        found.append(Detection(thing.name, picture, views, masks, torch.zeros(6, 5, 4, 4), flat, space))
    return found


def turned(detection, degrees):
    """The detection with keypoints that were found so many degrees too far round."""
    found = detection.keypoints_3d
    return replace(detection, keypoints_3d=replace(found, xyz=found.xyz @ about_vertical(degrees).T))


def with_wrong(found, angles):
    """Some of the detections turned: {number: degrees}."""
    return [turned(one, angles[i]) if i in angles else one for i, one in enumerate(found)]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------- misfits


def plain_fit(found, things):
    """The median object's error in plain least squares."""
    points = torch.stack([d.keypoints_3d.xyz for d in found])
    places = torch.stack([t.truth.keypoints_3d for t in things])
    weights = metrics.fit_landmark_weights(points, places)
    away = (metrics.apply_landmark_weights(weights, points) - places).norm(dim=-1).mean(-1)
    return float(away.median())


@pytest.mark.parametrize("wrong", [0, 1, 4, 8])
def test_wrongly_turned_objects_do_not_bend_the_fit(wrong):
    """Of 24 objects some were found the wrong way round: the others' errors stay, where plain least squares bends."""
    things = make_world(24)
    test, spoiled = detections(things, 0.01), {3 * i: 180.0 - 13 * i for i in range(wrong)}
    fit = with_wrong(detections(things, 0.01, seed=4), spoiled)
    scores = evaluate(test, things, fit, things)
    assert scores.misfits == tuple(f"thing{i}" for i in spoiled)
    clean = evaluate(test, things, detections(things, 0.01, seed=4), things)
    assert clean.misfits == ()
    assert scores.landmark_3d_median == pytest.approx(clean.landmark_3d_median, rel=0.15)
    assert wrong == 0 or plain_fit(fit, things) > 1.5 * clean.landmark_3d_median


def test_one_half_of_the_objects_is_not_bent_by_wrong_ones_in_the_other():
    things = make_world(24)
    found, wrong = detections(things, 0.01), {1: 180.0, 4: 170.0, 13: -100.0}
    scores = evaluate(with_wrong(found, wrong), things)
    assert scores.misfits == ("thing1", "thing4", "thing13")
    clean = evaluate(found, things)
    right = [row.landmark_3d for i, row in enumerate(scores.objects) if i not in wrong]
    assert median(right) == pytest.approx(clean.landmark_3d_median, rel=0.15)
    # The mean is that of all landmarks, and three objects of 24 change it much; the median says so.
    assert scores.landmark_3d > 3 * clean.landmark_3d
    assert scores.landmark_3d_median < 1.2 * clean.landmark_3d_median


def misfits(keypoints, landmarks, mask=None):
    kept = metrics.without_misfits(
        metrics.fit_landmark_weights, metrics.apply_landmark_weights, keypoints, landmarks, mask
    )
    return (~kept).nonzero()[:, 0].tolist()


def related(items, seed=0):
    """Landmarks that are means of keypoints up to small errors."""
    keypoints = draw(items, 6, 3, seed=seed)
    return keypoints, torch.stack([keypoints[:, i : i + 2].mean(1) for i in range(4)], 1) + 0.05 * draw(items, 4, 3)


def test_an_item_is_a_misfit_beyond_three_medians():
    """The stiff fit's residuals are about 0.3 here; one that is 2.5 of them is kept, one that is 4 is not."""
    keypoints, landmarks = related(40)
    assert misfits(keypoints, landmarks) == []
    weights = metrics.fit_landmark_weights(keypoints, landmarks, ridge=0.3)
    predicted = metrics.apply_landmark_weights(weights, keypoints)
    missed = (predicted - landmarks).norm(dim=-1).mean(-1)
    for times, expected in ((2.5, []), (4.0, [7])):
        moved = landmarks.clone()
        away = landmarks[7] - predicted[7]
        moved[7] = predicted[7] + away / away.norm(dim=-1, keepdim=True) * times * missed.median()
        assert misfits(keypoints, moved) == expected


def test_unknown_landmarks_and_objects_without_any_do_not_count():
    keypoints, landmarks = related(20)
    mask = torch.ones(20, 4, dtype=torch.bool)
    landmarks[2, 1], mask[2, 1] = torch.nan, False
    landmarks[5], mask[5] = 90.0, False
    assert misfits(keypoints, landmarks, mask) == []
    mask[5] = True
    assert misfits(keypoints, landmarks.nan_to_num(), mask) == [5]


def test_of_three_objects_none_is_called_a_misfit():
    keypoints, landmarks = related(3)
    landmarks[1] = 50.0
    assert misfits(keypoints, landmarks) == []


def test_a_linear_map_in_pictures_can_be_fitted_without_misfits():
    keypoints = draw(60, 3, 2)
    landmarks = ((keypoints - 0.5).flatten(1) @ draw(6, 8, seed=2)).reshape(-1, 4, 2) + 0.5
    landmarks[9] = 1 - landmarks[9]
    kept = metrics.without_misfits(metrics.fit_landmark_map, metrics.apply_landmark_map, keypoints, landmarks)
    assert (~kept).nonzero()[:, 0].tolist() == [9]


# ------------------------------------------------------------------------------------------- wrong turns


def test_the_turn_about_the_vertical():
    points = draw(5, 7, 3)
    angles = (0.0, 30.0, -120.0, 179.0, 44.0)
    rotated = torch.stack([x @ about_vertical(a).double().T for x, a in zip(points, angles, strict=True)])
    # What is beside it does not count: shifts, heights, unknown points.
    rotated = rotated + torch.tensor([4.0, -3.0, 9.0])
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[:, 2], rotated[:, 2], points[:, 2] = False, torch.nan, 50.0
    found = metrics.vertical_turn(points, rotated, mask)
    assert found.tolist() == pytest.approx(list(angles), abs=1e-4)
    line = torch.zeros(1, 4, 3) + torch.tensor([0.1, 0.3, 0.0])
    line[..., 2] = torch.arange(4.0)
    assert metrics.vertical_turn(line, draw(1, 4, 3).float()).isnan().all()


def test_wrong_turns_are_counted_and_named(tmp_path):
    """44° is a bad heading, 46° a wrong turn; both are told."""
    things = make_world(24)
    found = with_wrong(detections(things), {2: 44.0, 7: 46.0, 11: 180.0, 20: -90.0})
    scores = evaluate(found, things, detections(things), things)
    assert scores.measures["wrong_turns_45"] == pytest.approx(3 / 24)
    assert [round(scores.objects[i].turn_deg) for i in (2, 7, 20, 0)] == [-44, -46, 90, 0]
    plain = scores.to_dict()
    assert wrongly_turned(plain) == ["thing7", "thing11", "thing20"]
    assert wrong_turn_lines({"found": plain, "none": {"objects": []}}) == [
        "turned the wrong way, found: thing7, thing11, thing20"
    ]
    # The report reads the same from the file.
    write_json(tmp_path / "scores.json", {"discovered": plain})
    rows = {row.words: row for row in page_figures(read_scores(tmp_path / "scores.json"))}
    named = rows["turned the wrong way"]
    assert (named.discovered, named.untrained) == ("thing7, thing11, thing20", None)
    figures = {figure.title: texts["found"] for figure, texts in told({"found": plain})}
    assert figures["objects turned wrong (> 45° about the vertical), %"] == "12.5"
    mean, middle = (
        figures[f"3D landmark error ({name}), of object size, %"] for name in ("mean: MPJPE", "median object")
    )
    assert float(mean) > 1
    assert float(middle) < 1


# ------------------------------------------------------------------------------------------- symmetric objects

RADIUS = 0.4
CORNERS = [(math.cos(a), math.sin(a)) for a in (math.pi / 4 * k for k in (1, 3, 5, 7))]


def tables(count, symmetry, order):
    """Tables of square tops with corners and feet as landmarks; keypoints were found in one of ``order`` turns."""
    things = []
    for i, thing in enumerate(make_world(count)):
        size = RADIUS * (0.8 + 0.04 * i)
        places = torch.tensor([(size * x, size * y, z) for z in (-0.25, 0.25) for x, y in CORNERS] + [(0, 0, 0.25)])
        xy = torch.cat([torch.zeros(1, 9, 2), CAMERAS.project(places)])
        visible = torch.ones(7, 9, dtype=torch.bool)
        truth = Truth(tuple("abcdefghi"), (), places, torch.ones(9, dtype=torch.bool), xy, visible)
        things.append(replace(thing, truth=truth, symmetry=symmetry))
    angles = {i: 360.0 / order * (i * i % order) for i in range(count)}
    return things, with_wrong(detections(things), angles)


@pytest.mark.parametrize(("symmetry", "order"), [(4, 4), (2, 2), ("round", 72), (1, 1), (3, 3)])
@pytest.mark.parametrize("fitted", ["on others", "one half on the other"])
def test_a_symmetric_object_may_be_found_in_any_of_its_turns(symmetry, order, fitted):
    things, found = tables(12, symmetry, order)
    given = tables(12, symmetry, order)[::-1] if fitted == "on others" else ((), ())
    scores = evaluate(found, things, *given, moved=(found, things))
    assert scores.landmark_3d < 5e-3
    assert scores.landmark_2d < 5e-3
    assert scores.misfits == ()
    for name in ("wrong_turns_45", "mpjpe", "relative_pose_error_mean"):
        assert scores.measures[name] < 0.1, name
    for name in ("skeleton_merger_das", "pck3d_0.1", "same_index_repeatability_0.1"):
        assert scores.measures[name] == 1, name


@pytest.mark.parametrize("symmetry", [2, 4, "round"])
@pytest.mark.parametrize("fitted", ["on others", "one half on the other"])
def test_objects_that_are_found_right_are_right_with_any_symmetry(symmetry, fitted):
    """They have a front that keypoints know, and are seen from all sides; a symmetry only asks for less."""
    things = []
    for i, thing in enumerate(make_world(12)):
        places = thing.truth.keypoints_3d @ about_vertical(75.0 * i).T
        xy = torch.cat([torch.zeros(1, len(places), 2), CAMERAS.project(places)])
        truth = replace(thing.truth, keypoints_3d=places, keypoints_2d=xy)
        things.append(replace(thing, truth=truth, symmetry=symmetry))
    found = detections(things, 0.005)
    given = (found[6:], things[6:]) if fitted == "on others" else ((), ())
    scores = evaluate(found[:6], things[:6], *given)
    plain = evaluate(found[:6], [replace(thing, symmetry=1) for thing in things[:6]], *given)
    assert scores.landmark_3d < 1.1 * plain.landmark_3d + 0.01
    assert scores.dual_alignment == plain.dual_alignment == 1


def test_turns_that_the_symmetry_does_not_allow_are_errors():
    """A table that is 45° off is wrong for order 4 and for order 2, and right for a round one."""
    things, found = tables(12, 4, 1)
    wrong = with_wrong(found, {5: 45.0, 8: 90.0})

    def judged_as(symmetry):
        told = [replace(thing, symmetry=symmetry) for thing in things]
        rows = evaluate(wrong, told, found, told).objects
        return [round(abs(rows[i].turn_deg)) for i in (5, 8)], [rows[i].landmark_3d > 0.1 for i in (5, 8)]

    assert judged_as(1) == ([45, 90], [True, True])
    assert judged_as(2) == ([45, 90], [True, True])
    assert judged_as(4) == ([45, 0], [True, False])
    assert judged_as("round") == ([0, 0], [False, False])


def test_turns_after_a_motion_are_told_apart_from_errors():
    """The same tables 40° further round, found in other turns of theirs."""
    things, found = tables(8, 4, 4)
    turn = about_vertical(40.0)
    went = [replace(t, truth=replace(t.truth, keypoints_3d=t.truth.keypoints_3d @ turn.T)) for t in things]
    again = with_wrong(detections(went), {i: 90.0 * (i % 3) for i in range(8)})
    measures = evaluate(found, things, moved=(again, went)).measures
    assert measures["same_index_repeatability_0.1"] == 1
    plain = [replace(t, symmetry=1) for t in things], [replace(t, symmetry=1) for t in went]
    assert evaluate(found, plain[0], moved=(again, plain[1])).measures["same_index_repeatability_0.1"] < 0.9


def test_what_is_seen_follows_the_turn():
    things, _ = tables(1, 4, 1)
    truth = things[0].truth
    hidden = truth.visible.clone()
    hidden[0, 0] = hidden[2, 1] = False
    flat = truth.keypoints_2d.clone()
    flat[0] = torch.arange(18.0).reshape(9, 2)
    went = turned_truth(replace(truth, visible=hidden, keypoints_2d=flat), about_vertical(90.0), CAMERAS)
    # Corner 0 is where corner 1 was, and is seen as that one was; the centre stays.
    torch.testing.assert_close(went.keypoints_3d[0], truth.keypoints_3d[1])
    assert went.visible[2].tolist() == [False, *[True] * 8]
    assert went.visible[0].tolist() == [*[True] * 3, False, *[True] * 5]
    assert went.keypoints_2d[0, 0].tolist() == flat[0, 1].tolist()
    torch.testing.assert_close(went.keypoints_2d[1:, 0], truth.keypoints_2d[1:, 1])
    # Between two corners is no landmark: what is seen of it is not known, and on the input picture it does not count.
    between = turned_truth(replace(truth, visible=hidden, keypoints_2d=flat), about_vertical(45.0), CAMERAS)
    assert between.visible[2].all()
    assert between.visible[0].tolist() == [False] * 8 + [True]
    assert turned_truth(truth, torch.eye(3), CAMERAS) is truth
    # Views without a camera are as the input picture.
    for cameras, known in ((None, 1), (CAMERAS.select([0, 1]), 3)):
        blind = turned_truth(truth, about_vertical(45.0), cameras)
        assert blind.visible.sum(1).tolist() == [1] + [9] * (known - 1) + [1] * (7 - known)
    assert (order_of(3), order_of("round")) == (3, ROUND)
