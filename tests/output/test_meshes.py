"""GLB and PLY files open in trimesh with the names, colours and places that were given."""

import numpy as np
import pytest
import torch
import trimesh
from matplotlib.colors import to_rgb

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.output.meshes import write_points
from keyorbit.output.palette import palette


@pytest.fixture
def found():
    """Keypoints at known places of space, seen by the six cameras; number 1 has no score."""
    cameras = zero123plus_cameras("v1.2")
    xyz = torch.tensor([[0.1, 0.2, 0.3], [0.0, -0.1, -0.2], [-0.2, 0.0, 0.1], [0.3, -0.3, 0.0]])
    score = torch.ones(6, 4)
    score[:, 1] = 0
    return xyz, cameras, Keypoints2D(cameras.project(xyz), score, cameras).triangulate()


def y_up(places):
    x, y, z = np.moveaxis(np.asarray(places), -1, 0)
    return np.stack([x, z, -y], -1)


def vertices(scene, name):
    matrix, geometry = scene.graph[name]
    return trimesh.transform_points(scene.geometry[geometry].vertices, matrix)


def byte_colors(count):
    return [np.round(255 * np.array(to_rgb(color))) for color in palette(count)]


def test_glb_has_named_coloured_spheres_and_cameras(found, tmp_path):
    xyz, cameras, points = found
    write_points(tmp_path / "points.glb", points, cameras)
    scene = trimesh.load(tmp_path / "points.glb")
    # A keypoint that no view scored has no place to be shown.
    names = {"keypoint_00", "keypoint_02", "keypoint_03"}
    assert set(scene.graph.nodes_geometry) == names | {f"camera_view_{i}" for i in range(6)}
    for i in (0, 2, 3):
        matrix, geometry = scene.graph[f"keypoint_{i:02d}"]
        np.testing.assert_allclose(matrix[:3, 3], y_up(xyz[i]), atol=1e-4)
        # A factor or vertex colour would be read as linear light; a texture is sRGB, as the palette is.
        material = scene.geometry[geometry].visual.material
        assert material.name == f"keypoint_{i:02d}"
        assert material.baseColorFactor is None
        seen = scene.geometry[geometry].visual.to_color().vertex_colors[:, :3]
        np.testing.assert_array_equal(seen, np.broadcast_to(byte_colors(4)[i], seen.shape))


def test_glb_frusta_start_at_the_cameras_and_look_at_the_object(found, tmp_path):
    _, cameras, points = found
    write_points(tmp_path / "points.glb", points, cameras)
    scene = trimesh.load(tmp_path / "points.glb")
    for i in range(6):
        corners = vertices(scene, f"camera_view_{i}")
        center = y_up(cameras.centers[i])
        away = np.linalg.norm(corners - center, axis=1)
        assert away.min() < 1e-4
        rim = corners[away > 1e-3]
        assert ((rim - center) @ y_up(cameras.directions[i]) > 0).all()


def test_orthographic_frusta_have_parallel_sides_as_wide_as_the_view(found, tmp_path):
    _, _, points = found
    cameras = orbit_cameras([0.0, 90.0], 0.0, orthographic=True, scale=1.1)
    write_points(tmp_path / "points.glb", points, cameras)
    corners = vertices(trimesh.load(tmp_path / "points.glb"), "camera_view_0")
    # It looks along -x; y of the file is the world's z.
    np.testing.assert_allclose(np.unique(corners[:, 1].round(4)), [-0.55, 0.55])
    np.testing.assert_allclose(np.unique(corners[:, 2].round(4)), [-0.55, 0.55])
    assert len(np.unique(corners[:, 0].round(4))) == 2


def test_glb_skeleton_joins_the_keypoints_that_are_shown(found, tmp_path):
    xyz, _, points = found
    write_points(tmp_path / "points.glb", points, skeleton=[(0, 2), (1, 2), (2, 3)])
    ends = vertices(trimesh.load(tmp_path / "points.glb"), "skeleton")
    expected = y_up(xyz[[0, 2, 3]])
    away = np.linalg.norm(ends[:, None] - expected, axis=-1)
    assert away.min(1).max() < 1e-4
    assert away.min(0).max() < 1e-4
    with pytest.raises(InputError, match="0-4"):
        write_points(tmp_path / "other.glb", points, skeleton=[(0, 4)])


def test_spheres_grow_with_the_object_and_not_with_one_far_point(tmp_path):
    def radius(xyz):
        count = len(xyz)
        points = Keypoints3D(xyz, torch.ones(count), torch.zeros(count), torch.zeros(6, count))
        write_points(tmp_path / "points.glb", points)
        scene = trimesh.load(tmp_path / "points.glb")
        return scene.geometry["keypoint_00"].extents[0] / 2

    xyz = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    assert radius(7 * xyz) == pytest.approx(7 * radius(xyz), rel=1e-4)
    assert radius(torch.cat([xyz, torch.full((1, 3), 1e4)])) < 2 * radius(xyz)
    assert radius(xyz[:1]) > 0
    assert radius(xyz[:1].repeat(3, 1)) > 0


def test_ply_is_z_up_with_numbers_names_and_colours(found, tmp_path):
    xyz, _, points = found
    write_points(tmp_path / "points.ply", points)
    cloud = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_allclose(cloud.vertices, xyz[[0, 2, 3]], atol=1e-4)
    np.testing.assert_array_equal(cloud.colors[:, :3], [byte_colors(4)[i] for i in (0, 2, 3)])
    raw = cloud.metadata["_ply_raw"]["vertex"]["data"]
    assert raw["keypoint"].ravel().tolist() == [0, 2, 3]
    np.testing.assert_allclose(raw["score"].ravel(), points.score[[0, 2, 3]], rtol=1e-5)
    assert "comment keypoint_02\n" in (tmp_path / "points.ply").read_text()
    write_points(tmp_path / "points.ply", points, names=("seat", "back", "", "leg"))
    comments = [line for line in (tmp_path / "points.ply").read_text().splitlines() if line.startswith("comment")]
    assert comments[1:] == ["comment seat", "comment keypoint_02", "comment leg"]
    write_points(tmp_path / "points.glb", points, names=("seat", "back", "", "leg"))
    assert set(trimesh.load(tmp_path / "points.glb").geometry) == {"seat", "keypoint_02", "leg"}


def test_what_cannot_be_written_is_refused(found, tmp_path):
    _, cameras, points = found
    with pytest.raises(InputError, match=r"\.obj"):
        write_points(tmp_path / "points.obj", points)
    silent = Keypoints3D(points.xyz, torch.zeros(4), points.reprojection_error, points.residual)
    with pytest.raises(InputError, match="empty"):
        write_points(tmp_path / "points.glb", silent)
    assert list(tmp_path.iterdir()) == []
    write_points(tmp_path / "points.glb", silent, cameras)
    assert len(trimesh.load(tmp_path / "points.glb").geometry) == 6
