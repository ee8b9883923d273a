"""Silhouettes: the distance from them, what is inside, what is in sight."""

import pytest
import torch

from keyorbit.geometry.hull import (
    HullGrid,
    hull_points,
    in_sight,
    search_volume,
    silhouette_distance,
    silhouettes,
    surface_points,
)
from keyorbit.geometry.rigs import zero123plus_cameras

CAMERAS = zero123plus_cameras("v1.2")


def test_distance_from_the_silhouette():
    masks = torch.zeros(2, 4, 8, dtype=torch.bool)
    masks[0, 1, 2] = True
    found = silhouette_distance(masks)
    for row in range(4):
        for column in range(8):
            expected = (((row - 1) / 4) ** 2 + ((column - 2) / 8) ** 2) ** 0.5
            assert found[0, row, column].item() == pytest.approx(expected)
    # A view with no silhouette says nothing.
    assert found[1].eq(0).all()


def test_silhouettes_without_alpha(objects):
    thing = objects[0]
    agree = (silhouettes(thing.views) == thing.masks).float().mean()
    assert agree > 0.95


def test_a_point_behind_the_surface_is_not_in_sight():
    wall = torch.cartesian_prod(torch.tensor([0.2]), torch.linspace(-0.3, 0.3, 30), torch.linspace(-0.3, 0.3, 30))
    behind = torch.tensor([[-0.2, 0.0, 0.0], [0.2, 0.0, 0.0]])
    seen = in_sight(behind, wall, CAMERAS, spacing=0.06)
    facing = CAMERAS.centers[:, 0] > 0.2
    assert torch.equal(seen[facing, 0], torch.zeros(int(facing.sum()), dtype=torch.bool))
    assert seen[~facing, 0].all()
    along = CAMERAS.centers[:, 0].abs() < 0.2  # those look along the wall: its near edge hides its middle
    assert torch.equal(seen[:, 1], ~along)


@pytest.mark.parametrize(("spacings", "hidden"), [(2.4, False), (2.6, True)])
def test_a_surface_hides_what_is_more_than_two_and_a_half_spacings_behind_it(spacings, hidden):
    spacing, (_, radius) = 0.1, search_volume(CAMERAS)
    centre = CAMERAS.centers[:1]
    surface = torch.zeros(1, 3)
    behind = -centre / centre.norm() * spacings * spacing * radius
    assert bool(in_sight(behind, surface, CAMERAS, spacing)[0, 0]) is not hidden
    # Beside it, by more than half a spacing of the picture, it hides nothing.
    aside = torch.linalg.cross(centre, torch.tensor([[0.0, 0.0, 1.0]]))
    depth = centre.norm() + behind.norm()
    beside = behind + 0.6 * spacing * aside / aside.norm() / CAMERAS.intrinsics[0, 0, 0] * depth
    assert bool(in_sight(beside, surface, CAMERAS, spacing)[0, 0])


@pytest.mark.parametrize("full", [False, True])
def test_the_surface_is_the_same_from_a_grid_that_was_made_before(full):
    """And it is what is drawn from the hull's surface, each point once, in order."""
    masks = torch.zeros(len(CAMERAS), 16, 16, dtype=torch.bool)
    masks[:, 4:11, 5:13] = True
    distance = silhouette_distance(masks | full)
    draws = [torch.Generator().manual_seed(3) for _ in range(3)]
    slow = torch.unique(hull_points(distance, CAMERAS, 1500, draws[0], side=32), dim=0)
    assert torch.equal(surface_points(distance, CAMERAS, draws[1]), slow)
    assert torch.equal(surface_points(distance, CAMERAS, draws[2], HullGrid.of(CAMERAS)), slow)
