"""Files for other tools hold the keypoints that were given, by name, colour and place."""

import json

import numpy as np
import pytest
import torch
import trimesh
from matplotlib.colors import to_rgb

from keyorbit.cameras import orbit_cameras, zero123plus_cameras
from keyorbit.errors import InputError
from keyorbit.export import coco_dict, keypoints_dict, write_json, write_points
from keyorbit.keypoints import Keypoints2D
from keyorbit.plotting import draw_keypoints, palette, save_figure


@pytest.fixture
def found():
    """Keypoints at known places of space, seen by the six cameras; the last has no score."""
    cameras = zero123plus_cameras("v1.2")
    xyz = torch.tensor([[0.1, 0.2, 0.3], [-0.2, 0.0, 0.1], [0.0, -0.1, -0.2]])
    score = torch.ones(6, 3)
    score[:, 2] = 0
    flat = Keypoints2D(cameras.project(xyz), score, cameras)
    return xyz, flat, flat.triangulate()


def test_glb_has_named_coloured_spheres_and_cameras(found, tmp_path):
    xyz, flat, points = found
    write_points(tmp_path / "points.glb", points, flat.cameras)
    scene = trimesh.load(tmp_path / "points.glb")
    names = set(scene.graph.nodes_geometry)
    # A keypoint that no view scored has no place to be shown.
    assert {name for name in names if name.startswith("keypoint")} == {"keypoint_00", "keypoint_01"}
    assert {name for name in names if name.startswith("camera")} == {f"camera_{i}" for i in range(6)}
    for i in range(2):
        matrix, geometry = scene.graph[f"keypoint_{i:02d}"]
        x, y, z = xyz[i].tolist()
        np.testing.assert_allclose(matrix[:3, 3], [x, z, -y], atol=1e-4)
        color = scene.geometry[geometry].visual.vertex_colors[0][:3]
        np.testing.assert_allclose(color / 255, to_rgb(palette(3)[i]), atol=1 / 128)


def test_glb_frusta_start_at_the_cameras(found, tmp_path):
    _, flat, points = found
    write_points(tmp_path / "points.glb", points, flat.cameras)
    scene = trimesh.load(tmp_path / "points.glb")
    for i in range(6):
        matrix, geometry = scene.graph[f"camera_{i}"]
        vertices = trimesh.transform_points(scene.geometry[geometry].vertices, matrix)
        x, y, z = flat.cameras.centers[i].tolist()
        assert np.abs(vertices - [x, z, -y]).sum(1).min() < 1e-4


def test_ply_is_z_up(found, tmp_path):
    xyz, _, points = found
    write_points(tmp_path / "points.ply", points)
    cloud = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_allclose(cloud.vertices, xyz[:2], atol=1e-4)
    with pytest.raises(InputError, match=r"\.obj"):
        write_points(tmp_path / "points.obj", points)


def test_json_says_everything_and_can_be_read_back(found, tmp_path):
    xyz, flat, points = found
    write_json(tmp_path / "k.json", keypoints_dict("thing", flat, points, [f"view_{i}" for i in range(6)]))
    read = json.loads((tmp_path / "k.json").read_text())
    assert read["object"] == "thing"
    np.testing.assert_allclose([k["xyz"] for k in read["keypoints"][:2]], xyz[:2], atol=1e-4)
    np.testing.assert_allclose(read["views"][3]["xy"], flat.xy[3], atol=1e-5)
    assert read["input"] is None
    np.testing.assert_allclose(read["cameras"]["world_to_camera"], flat.cameras.world_to_camera, atol=1e-5)


def test_json_refuses_what_is_not_finite_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "k.json", {"a": 1})
    with pytest.raises(InputError, match="not finite"):
        write_json(tmp_path / "k.json", {"a": float("nan")})
    assert json.loads((tmp_path / "k.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["k.json"]


def test_coco_counts_pixels_from_the_corner():
    xy = torch.tensor([[0.25, 0.5], [0.75, 0.125], [0.9, 0.9]])
    coco = coco_dict([("a.png", 80, 40, xy, torch.tensor([1.0, 0.5, 0.0]))], 3)
    (annotation,) = coco["annotations"]
    assert annotation["keypoints"] == [20.0, 20.0, 2, 60.0, 5.0, 2, 0, 0, 0]
    assert annotation["num_keypoints"] == 2
    assert annotation["bbox"] == [20.0, 5.0, 40.0, 15.0]
    assert annotation["area"] == 600.0
    assert coco["images"] == [{"id": 1, "file_name": "a.png", "width": 80, "height": 40}]
    assert coco["categories"][0]["keypoints"] == ["keypoint_00", "keypoint_01", "keypoint_02"]
    (silent,) = coco_dict([("a.png", 80, 40, xy, torch.zeros(3))], 3)["annotations"]
    assert silent["num_keypoints"] == 0
    assert silent["bbox"] == [0.0, 0.0, 0.0, 0.0]


def test_a_number_keeps_its_colour():
    assert palette(5) == palette(40)[:5]
    assert len(set(palette(40))) == 40


def test_pictures_of_different_sizes_stand_in_one_row(tmp_path):
    pictures = [np.full((32, 32, 3), 255, np.uint8), np.zeros((16, 24, 3), np.uint8)]
    xy = [torch.rand(2, 2)] * 2
    # The types of a list's items are checked by lot: draw until each has had its turn.
    for _ in range(16):
        figure = draw_keypoints(pictures, xy, [torch.rand(2)] * 2)
    assert len(figure.axes) == 2
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0
    with pytest.raises(InputError, match="cannot write"):
        save_figure(figure, tmp_path / "none" / "a.png")


def test_crosses_are_drawn_on_the_first_picture_only():
    pictures = [np.zeros((16, 16, 3), np.uint8)] * 2
    crosses = torch.tensor([[0.25, 0.75], [0.5, 0.125]])
    figure = draw_keypoints(pictures, [torch.rand(2, 2)] * 2, crosses=crosses)
    drawn = [[line.get_xydata()[0].tolist() for line in axes.lines if line.get_marker() == "x"] for axes in figure.axes]
    assert drawn == [crosses.tolist(), []]


def test_json_holds_the_camera_of_the_input_picture(tmp_path):
    views = zero123plus_cameras("v1.2")
    xyz = 0.5 * torch.rand(8, 3, generator=torch.Generator().manual_seed(0)) - 0.25
    camera = orbit_cameras(0.0, 35.0)
    flat = Keypoints2D(views.project(xyz), torch.ones(6, 8), views, camera.project(xyz)[0], torch.ones(8))
    points = flat.triangulate()
    found = flat.input_camera(points)
    write_json(tmp_path / "k.json", keypoints_dict("thing", flat, points, [f"view_{i}" for i in range(6)], found))
    read = json.loads((tmp_path / "k.json").read_text())["input_camera"]
    assert read["elevation_deg"] == pytest.approx(35.0, abs=0.1)
    np.testing.assert_allclose(read["world_to_camera"], camera.world_to_camera[0], atol=1e-2)
    assert max(read["residual"]) < 1e-3
