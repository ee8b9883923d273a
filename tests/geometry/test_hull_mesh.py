"""The mesh of the visual hull: closed, turned outwards, and as large as what the outlines leave."""

import numpy as np
import pytest
import torch

from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.hull_mesh import hull_mesh
from keyorbit.geometry.rigs import zero123plus_cameras

SIZE = 128


def discs(cameras, radius):
    """Outlines of a ball at the origin: a pixel is on it if its ray passes the ball."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inner = cameras.intrinsics[:, :2, :2].diagonal(dim1=-2, dim2=-1)[:, :, None, None]
    beside = torch.stack([x, y])[None].sub(cameras.intrinsics[:, :2, 2, None, None]) / inner
    if cameras.orthographic:
        return beside.square().sum(1) <= radius**2
    distance = cameras.centers.norm(dim=-1)[:, None, None]
    return beside.square().sum(1).sqrt().atan().sin() * distance <= radius


def volume(mesh):
    a, b, c, d = mesh.vertices[mesh.quads].transpose(1, 0, 2)
    return float((np.einsum("ij,ij->", a, np.cross(b, c)) + np.einsum("ij,ij->", a, np.cross(c, d))) / 6)


@pytest.mark.parametrize(
    "cameras",
    [zero123plus_cameras(), orbit_cameras([0.0, 60.0, 120.0], [0.0, 0.0, 0.0], orthographic=True)],
    ids=["perspective", "orthographic"],
)
def test_a_balls_outlines_give_a_closed_surface_about_it(cameras):
    mesh = hull_mesh(discs(cameras, 0.3), cameras, 40)
    edges = np.sort(np.concatenate([mesh.quads[:, [i, (i + 1) % 4]] for i in range(4)]), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()
    # No hull is within what it is of; three cameras in a plane leave the intersection of three cylinders.
    away = np.linalg.norm(mesh.vertices, axis=1)
    assert away.min() > 0.29
    assert 4 / 3 * np.pi * 0.3**3 < volume(mesh) < 1.45 * 4 / 3 * np.pi * 0.3**3
    assert (mesh.normals * mesh.vertices).sum(1).min() > 0
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)


def test_every_vertex_is_within_every_outline():
    cameras = zero123plus_cameras()
    masks = torch.zeros(6, SIZE, SIZE, dtype=torch.bool)
    masks[:, 30:100, 50:80] = True
    masks[:, 90:100, 20:110] = True
    xy = cameras.project(torch.from_numpy(hull_mesh(masks, cameras).vertices).float())
    row, column = (xy[..., 1] * SIZE).long(), (xy[..., 0] * SIZE).long()
    grown = torch.nn.functional.max_pool2d(masks[None].float(), 9, 1, 4)[0] > 0
    assert torch.stack([grown[v, row[v], column[v]] for v in range(6)]).all()


def test_without_outlines_or_with_ones_that_contradict_each_other_there_is_none():
    cameras = zero123plus_cameras()
    assert hull_mesh(torch.zeros(6, 32, 32) > 0, cameras, 12) is None
    apart = torch.zeros(6, 32, 32, dtype=torch.bool)
    apart[:, :2, :2] = True
    apart[0] = False
    apart[0, -2:, -2:] = True
    assert hull_mesh(apart, cameras, 12) is None
    with pytest.raises(ValueError, match="4 or more"):
        hull_mesh(apart, cameras, 3)


def test_a_view_without_an_outline_takes_nothing_away():
    cameras = zero123plus_cameras()
    masks = discs(cameras, 0.3)
    fewer = masks.clone()
    fewer[2] = False
    assert volume(hull_mesh(fewer, cameras, 24)) >= volume(hull_mesh(masks, cameras, 24))
