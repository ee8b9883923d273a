"""The skeleton of planted parts: rigid pieces hold together, and join where they are hinged."""

import itertools
import math

import pytest
import torch

from keyorbit.errors import InputError
from keyorbit.output.choices import check_edges
from keyorbit.output.skeleton import co_moving_skeleton


def arm(bend_deg, turn_deg=0.0):
    """A chain 0-1-2 from the shoulder to the elbow, and 2-3-4 to the hand, bent at the elbow; all turned about z."""
    bend, turn = math.radians(bend_deg), math.radians(turn_deg)
    upper = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    along = torch.tensor([math.cos(bend), math.sin(bend), 0.0])
    chain = torch.cat([upper, torch.stack([upper[2] + along, upper[2] + 2 * along])])
    spin = torch.tensor([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0.0, 0, 1]])
    return chain @ spin.T


def test_an_arm_that_bends_is_a_chain():
    poses = torch.stack([arm(bend, 40 * i) for i, bend in enumerate((0.0, 45.0, 100.0, 170.0))])
    assert co_moving_skeleton(poses) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_parts_that_move_come_before_places_that_are_near():
    """When the arm is mostly folded the hand is next to the shoulder; from one pose alone they would be joined."""
    folded = arm(178.0)
    assert (0, 4) in co_moving_skeleton(folded[None])
    poses = torch.stack([folded, arm(170.0), arm(165.0), arm(90.0)])
    assert co_moving_skeleton(poses) == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_one_object_gives_the_shortest_tree():
    points = torch.rand(1, 6, 3, generator=torch.Generator().manual_seed(0))
    length = torch.cdist(points[0], points[0])

    def joined(edges):
        reached = {0}
        for _ in edges:
            reached |= {end for edge in edges if reached & set(edge) for end in edge}
        return len(reached) == 6

    trees = [edges for edges in itertools.combinations(itertools.combinations(range(6), 2), 5) if joined(edges)]
    shortest = min(trees, key=lambda edges: sum(float(length[edge]) for edge in edges))
    assert co_moving_skeleton(points) == sorted(shortest)


def test_turning_moving_and_scaling_all_change_nothing():
    poses = torch.rand(4, 7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    assert co_moving_skeleton(3 * poses @ turn + torch.arange(4.0).double()[:, None, None]) == co_moving_skeleton(poses)


def test_what_is_not_seen_has_no_edge_and_does_no_harm():
    poses = torch.stack([arm(bend) for bend in (0.0, 45.0, 100.0, 170.0)])
    seen = torch.ones(4, 5, dtype=torch.bool)
    seen[:, 4] = False
    seen[1:, 3] = False  # once is too seldom to tell whether its distances stay
    poses[~seen] = torch.nan
    assert co_moving_skeleton(poses, seen) == [(0, 1), (1, 2)]
    assert co_moving_skeleton(poses[:1], seen[:1]) == [(0, 1), (1, 2), (2, 3)]


def test_places_on_a_picture_will_do():
    assert co_moving_skeleton(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.4, 0.0]]])) == [(0, 2), (1, 2)]


@pytest.mark.parametrize("edge", [(0, 3), (-1, 1), (2, 2)])
def test_edges_join_two_keypoints(edge):
    check_edges([(0, 2), (1, 0)], 3)
    with pytest.raises(InputError, match=f"{edge[0]}-{edge[1]} does not join two of keypoints 0 to 2"):
        check_edges([(0, 1), edge], 3)
