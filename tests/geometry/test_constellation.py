"""Tokens read together: the turn is found, ambiguous maps are told apart, and discovery finds points that stay."""

import math
from dataclasses import replace

import pytest
import torch

from helpers.slabs import picture, rotation
from keyorbit.geometry.alignment import form_of
from keyorbit.geometry.constellation import (
    ConstellationConfig,
    gathered,
    placed,
    read_constellation,
    turn_scores,
    turned,
    turns,
    upright,
)
from keyorbit.geometry.evidence import read_evidence
from keyorbit.geometry.heatmaps import gaussian, normalize
from keyorbit.geometry.hull import silhouette_distance, surface_points
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout

CAMERAS = zero123plus_cameras("v1.2")
LAYOUT, SIDE = Layout(3, 2), 32


def test_turns_are_equal_steps_about_the_vertical():
    found = turns(12)
    for step, matrix in enumerate(found):
        torch.testing.assert_close(matrix, rotation(step * math.pi / 6), atol=1e-6, rtol=0)


def test_scores_and_shares_are_the_slow_ones(generator):
    evidence, points = torch.randn(2, 3, 7, generator=generator), torch.randn(2, 7, 3, generator=generator)
    places, width, absent = torch.randn(3, 3, generator=generator), 0.7, 0.05
    under = turned(points, turns(5))
    scores = turn_scores(evidence, under, places, width, absent)
    for item in range(2):
        for angle, matrix in enumerate(turns(5)):
            total = 0.0
            for token in range(3):
                likelihood = [
                    math.exp(
                        evidence[item, token, p]
                        - (matrix @ points[item, p] - places[token]).square().sum() / (2 * width**2)
                    )
                    for p in range(7)
                ]
                total += math.log(sum(likelihood) / 7 + absent) / 3
            assert scores[item, angle].item() == pytest.approx(total, abs=1e-4)
    share = placed(evidence, points, places, width)
    torch.testing.assert_close(share.sum(-1), torch.ones(2, 3))
    one = evidence[1, 2] - (points[1] - places[2]).square().sum(-1) / (2 * width**2)
    torch.testing.assert_close(share[1, 2], one.softmax(-1), atol=1e-5, rtol=1e-4)
    assert torch.equal(gathered(under, torch.tensor([3, 1])), torch.stack([under[0, 3], under[1, 1]]))


def test_only_views_that_stand_upright_are():
    assert upright(CAMERAS)
    lying = replace(CAMERAS, world_to_camera=CAMERAS.world_to_camera @ lying_down())
    assert not upright(lying)


def lying_down():
    matrix = torch.eye(4)
    matrix[1:3, 1:3] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return matrix


@pytest.mark.parametrize("angle", [0.0, 1.0, 2.5, 4.4])
def test_tokens_that_mark_two_legs_are_told_apart_by_the_others(angle):
    # Four legs and a back; the legs' tokens mark the right leg, and the opposite one more strongly.
    legs = torch.tensor([[0.3, 0.2, -0.3], [0.3, -0.2, -0.3], [-0.3, 0.2, -0.3], [-0.3, -0.2, -0.3]])
    back = torch.tensor([[-0.3, 0.0, 0.4], [-0.1, 0.0, 0.1]])
    places = torch.cat([legs, back])
    truth = places @ rotation(angle).T
    right = gaussian(CAMERAS.project(truth), SIDE, SIDE, 1.0)
    wrong = gaussian(CAMERAS.project(torch.cat([truth[:4].flip(0), truth[4:]])), SIDE, SIDE, 1.0)
    heatmaps = normalize(right + 1.5 * wrong)
    alone = read_evidence(heatmaps, CAMERAS).xyz
    together = read_constellation(heatmaps, CAMERAS, places / 0.5).xyz
    assert (alone[:4] - truth[:4]).norm(dim=-1).min() > 0.3
    assert (together - truth).norm(dim=-1).max() < 0.03
    # The back need not be read to help.
    legs_alone = read_constellation(heatmaps[:, :4], CAMERAS, places[:4] / 0.5).xyz
    helped = read_constellation(heatmaps, CAMERAS, places / 0.5, count=4).xyz
    assert (legs_alone - truth[:4]).norm(dim=-1).min() > 0.3
    assert torch.equal(helped, together[:4])


@pytest.mark.parametrize("angle", [0.0, 1.0, 3.6])
def test_the_constellation_is_stretched_to_the_object(angle):
    # A longer one; the token of a corner has a second, stronger peak, where the planted object has the corner.
    waves, by = torch.zeros(3, 32), torch.tensor([1.4, 1.0, 1.0])
    corners = torch.tensor([[0.3, 0.15, -0.15], [0.3, -0.15, -0.15], [-0.3, 0.15, -0.15], [-0.3, -0.15, -0.15]])
    places = torch.cat([corners, torch.tensor([[-0.3, 0.0, 0.3]])])
    planted, longer = (
        silhouette_distance(picture(turn, size, waves)[1]) for turn, size in ((0.0, torch.ones(3)), (angle, by))
    )
    truth, misled = (places * by) @ rotation(angle).T, places @ rotation(angle).T
    heatmaps = gaussian(CAMERAS.project(truth), SIDE, SIDE, 1.0)
    heatmaps[:, 0] += 1.1 * gaussian(CAMERAS.project(misled), SIDE, SIDE, 1.0)[:, 0]
    form = form_of(surface_points(planted, CAMERAS) / 0.5)

    def read(stretch):
        config = ConstellationConfig(read=0.12, stretch=stretch)
        return read_constellation(normalize(heatmaps), CAMERAS, places / 0.5, longer, config, form=form).xyz

    assert (read(stretch=True) - truth).norm(dim=-1).max() < 0.05  # a cell of the grid is 0.03
    assert (read(stretch=False)[0] - misled[0]).norm() < 0.05
