"""KeypointNet's figures of planted keypoints on meshes: their definitions' values, in any unit and any turn."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.meshes import POINTS, write_chair, write_keypointnet
from helpers.worlds import detections
from keyorbit.evaluation.evaluate import evaluate
from keyorbit.evaluation.on_mesh import THRESHOLDS, on_meshes
from keyorbit.evaluation.reducing import outcome_of
from keyorbit.synthetic.meshes.views import load_meshes

# The diagonal of the chair's box.
DIAGONAL = float(np.linalg.norm([1.0, 1.1, 1.0]))
UNITS = {"a": (1.0, (0, 0, 0)), "b": (50.0, (9, 0, 3)), "c": (0.01, (0, 0, 0)), "d": (2.0, (1, 1, 1))}


@pytest.fixture(scope="module")
def chairs(tmp_path_factory):
    """Four chairs in different units; one does not know one of its landmarks."""
    folder, told = tmp_path_factory.mktemp("chairs"), {}
    for name, (scale, shift) in UNITS.items():
        write_chair(folder / f"{name}.ply", scale, shift)
        places = {k: (np.array(place) * scale + shift).tolist() for k, place in enumerate(POINTS.values())}
        told[name] = {k: place for k, place in places.items() if (name, k) != ("c", 3)}
    write_keypointnet(folder / f"{folder.name}.keypoints.json", told)
    return list(load_meshes(folder, up="y", size=8))


def found_on(chairs, moved=(0.0, 0.0, 0.0)):
    """Keypoints that are the landmarks; that of the top is moved, in diagonals of the box and the file's axes."""
    found = []
    for detection, thing in zip(detections(chairs), chairs, strict=True):
        xyz = thing.truth.keypoints_3d.clone()
        xyz[1] += torch.from_numpy(thing.mesh.rotation @ moved * DIAGONAL / unit_of(thing)).float()
        points = replace(detection.keypoints_3d, xyz=xyz, score=torch.ones(len(xyz)))
        found.append(replace(detection, keypoints_3d=points, mesh=thing.mesh))
    return found


def unit_of(thing):
    """The world of a chair of unit size."""
    return 1 / (thing.mesh.scale * UNITS[thing.name][0])


def test_perfect_keypoints_are_perfect_at_every_threshold(chairs):
    found = evaluate(found_on(chairs), chairs)
    assert found.keypointnet.thresholds == THRESHOLDS
    # One landmark is not there, and a keypoint is at its place all the same.
    assert found.keypointnet.iou == pytest.approx([15 / 16] * 10)
    assert found.keypointnet.pck == pytest.approx([1.0] * 10, abs=1e-6)
    assert found.measures["keypointnet_mesh_iou_0.1"] == pytest.approx(15 / 16)
    assert found.measures["keypointnet_mesh_pck_0.1"] == pytest.approx(1.0)
    assert found.to_dict()["keypointnet"]["pck"] == found.keypointnet.pck


def test_a_keypoint_counts_up_to_its_distance_along_the_surface(chairs):
    # The top's keypoint slides along the top's edge; the way is straight there.
    found = found_on(chairs, (0.055, 0.0, 0.0))
    seen = on_meshes(
        [outcome_of(one) for one in found],
        [thing.truth for thing in chairs],
        torch.stack([d.keypoints_3d.xyz for d in found]),
    )
    assert seen.keypoints[:, 1, 1] == pytest.approx(torch.full((4,), 0.055), abs=0.003)
    assert seen.predicted[:, 1] == pytest.approx(torch.full((4,), 0.055), abs=0.003)
    assert seen.keypoints[:3, 0, 0] == pytest.approx(torch.zeros(3), abs=1e-6)
    assert torch.isinf(seen.keypoints[:, 0, 1]).all()
    figures = evaluate(found, chairs).keypointnet
    # Four landmarks are missed, and four keypoints more are wrong, until the threshold is as wide as they are off.
    assert figures.iou == pytest.approx([(15 - 4) / (15 + 5)] * 5 + [15 / 16] * 5)
    assert figures.map[0] < figures.map[-1] <= 1


def test_confidence_decides_the_order_of_detections(chairs):
    found = found_on(chairs, (0.3, 0.0, 0.0))
    order = [0.9, 0.1, 0.8, 0.7], [0.1, 0.9, 0.2, 0.3]
    good, bad = (
        evaluate([replace(d, keypoints_3d=replace(d.keypoints_3d, score=torch.tensor(s))) for d in found], chairs)
        for s in order
    )
    assert good.keypointnet.iou == bad.keypointnet.iou
    assert good.keypointnet.map[-1] > bad.keypointnet.map[-1] + 0.2


def test_symmetric_objects_are_judged_in_the_turn_that_fits(chairs):
    turned = [replace(thing, symmetry=2) for thing in chairs]
    half = torch.tensor([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
    found = []
    for detection in found_on(chairs):
        points = detection.keypoints_3d
        found.append(replace(detection, keypoints_3d=replace(points, xyz=points.xyz @ half.T)))
    mixed = [found_on(chairs)[0], *found[1:]]
    as_told = evaluate(mixed, turned).keypointnet
    assert evaluate(mixed, chairs).keypointnet.pck[-1] < 0.8
    assert as_told.pck[-1] == pytest.approx(1.0, abs=1e-6)


def test_objects_without_meshes_have_none(chairs):
    bare = [replace(detection, mesh=None) for detection in found_on(chairs)]
    found = evaluate(bare, chairs)
    assert found.keypointnet is None
    assert "keypointnet" not in found.to_dict()
    assert found.measures["keypointnet_mesh_map_0.1"] is None
