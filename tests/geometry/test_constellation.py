"""Tokens read together: the turn is found, ambiguous maps are told apart, and discovery finds points that stay."""

import math
from dataclasses import replace

import pytest
import torch

from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.maps import token_heatmaps
from keyorbit.diffusion.model_facts import ModelFacts
from keyorbit.diffusion.prepare import Shown
from keyorbit.diffusion.queries import LayerQueries, QueryCache
from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.discover import discover_from, start_run
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
from keyorbit.geometry.hull import in_sight, silhouette_distance, surface_points
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout, merge_views
from keyorbit.geometry.warps import Warp
from keyorbit.ranks import Ranks

CAMERAS = zero123plus_cameras("v1.2")
LAYOUT, SIDE = Layout(3, 2), 32
KNOWN = SettledConfig(layers=("layer",), maps="logits", rate=0.1, temperature=0.3, prepare=PrepareConfig().settled(0))


def rotation(angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


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


def test_a_point_behind_the_surface_is_not_in_sight():
    wall = torch.cartesian_prod(torch.tensor([0.2]), torch.linspace(-0.3, 0.3, 30), torch.linspace(-0.3, 0.3, 30))
    behind = torch.tensor([[-0.2, 0.0, 0.0], [0.2, 0.0, 0.0]])
    seen = in_sight(behind, wall, CAMERAS, spacing=0.06)
    facing = CAMERAS.centers[:, 0] > 0.2
    assert torch.equal(seen[facing, 0], torch.zeros(int(facing.sum()), dtype=torch.bool))
    assert seen[~facing, 0].all()
    along = CAMERAS.centers[:, 0].abs() < 0.2  # those look along the wall: its near edge hides its middle
    assert torch.equal(seen[:, 1], ~along)


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


class KnownObjects:
    """A source whose queries hold where each pixel's surface is on the object, which stands in any direction."""

    versions, device = 1, torch.device("cpu")

    def __init__(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.facts = ModelFacts(
            "known", "", ("layer",), LAYOUT, CAMERAS, SIDE // 2, torch.randn(50, 64, generator=generator)
        )
        waves = 5 * torch.randn(3, 32, generator=torch.Generator().manual_seed(9))
        self.angles, self.items, self.masks = [], [], []
        for _ in range(count):
            angle = float(2 * math.pi * torch.rand(1, generator=generator))
            stretch = 0.9 + 0.2 * torch.rand(3, generator=generator)
            features, mask = picture(angle, stretch, waves)
            self.angles.append(angle)
            self.items.append(features)
            self.masks.append(mask)

    def __len__(self):
        return len(self.items)

    def shown(self, number):
        mask = self.masks[number]
        return Shown(Warp.identity((1, 6)).matrix, mask[None], silhouette_distance(mask))

    def maps(self, number, tokens):
        query = LayerQueries("layer", (3 * SIDE, 2 * SIDE), self.items[number], None, None)
        return QueryCache((query,), 1).maps(tokens, slice(None), "logits")


def picture(angle, stretch, waves):
    """Features [1 1 position 64] and silhouettes of a slab with a tower, seen from the six views."""
    along = torch.linspace(-1, 1, 24)
    slab = torch.cartesian_prod(0.35 * along, 0.2 * along, torch.tensor([-0.2, -0.1]))
    tower = torch.cartesian_prod(torch.tensor([-0.35, -0.25]), 0.15 * along, 0.1 + 0.25 * along)
    own = torch.cat([slab, tower])
    world = (own * stretch) @ rotation(angle).T
    xy, depth = CAMERAS.project(world), CAMERAS.depth(world)
    grid, mask = torch.zeros(6, SIDE * SIDE, 64), torch.zeros(6, SIDE * SIDE, dtype=torch.bool)
    phase = own @ waves
    features = torch.cat([phase.cos(), phase.sin()], dim=-1)
    for view in range(6):
        order = depth[view].argsort(descending=True)  # the nearest is painted last
        column, row = (xy[view, order] * SIDE).long().clamp(0, SIDE - 1).unbind(-1)
        for pixel, point in zip((row * SIDE + column).tolist(), order.tolist(), strict=True):
            grid[view, pixel], mask[view, pixel] = features[point], True
    tiles = merge_views(grid.reshape(6, SIDE, SIDE, 64).permute(3, 0, 1, 2)[None], LAYOUT)[0]
    return tiles.flatten(1).T[None, None], mask.reshape(6, SIDE, SIDE)


def test_discovery_finds_points_that_stay_on_objects_that_turn():
    config = replace(KNOWN, num_tokens=6, num_candidates=10, steps=40, batch=4, planting=60, exemplars=2)
    tokens = discover_from(KnownObjects(8), config)
    places = torch.tensor(tokens.info.places)
    assert places.shape == (10, 3)
    assert tokens.helpers.shape == (4, 64)
    everything = torch.cat([tokens.embedding.detach(), tokens.helpers])
    found = []
    new = KnownObjects(6, seed=5)
    for number, angle in enumerate(new.angles):
        heatmaps = token_heatmaps(new.maps(number, everything), LAYOUT, "logits", SIDE, 0.3)[0]
        xyz = read_constellation(heatmaps, CAMERAS, places, silhouette_distance(new.masks[number]), count=6).xyz
        found.append(xyz @ rotation(angle))  # in the object's own frame
    found = torch.stack(found)
    stray = (found - found.median(0).values).norm(dim=-1)
    assert stray.median() < 0.04
    assert (stray > 0.15).float().mean() < 0.1
    # They cover the object: no two in one place.
    middle = found.median(0).values
    assert torch.pdist(middle).min() > 0.05


def test_the_constellation_travels_with_the_tokens(tmp_path):
    few = ConstellationConfig(angles=8)
    config = replace(
        KNOWN, num_tokens=3, num_candidates=4, steps=1, batch=2, planting=2, exemplars=1, constellation=few
    )
    tokens = discover_from(KnownObjects(2), config)
    tokens.save(tmp_path / "tokens.safetensors")
    loaded = type(tokens).load(tmp_path / "tokens.safetensors")
    assert loaded.info == tokens.info
    assert len(loaded.info.form) == 4
    chosen = loaded.select(torch.tensor([2, 0]))
    assert chosen.info.places == (tokens.info.places[2], tokens.info.places[0], tokens.info.places[3])
    assert torch.equal(chosen.helpers, tokens.helpers)


def test_every_candidate_is_a_keypoint_or_a_helper():
    config = replace(KNOWN, num_tokens=2, num_candidates=5, steps=1, batch=2, planting=2, exemplars=1)
    run = start_run(KnownObjects(2), config, Ranks())
    run.begin(lambda done, total: None)
    tokens = discover_from(KnownObjects(2), replace(config, steps=0))
    kept = torch.cat([tokens.embedding.detach(), tokens.helpers])
    candidates = run.tokens.embedding.detach()
    order = (kept[:, None] == candidates).all(-1).float().argmax(1)
    assert sorted(order.tolist()) == list(range(5))
    torch.testing.assert_close(kept, candidates[order], rtol=0, atol=0)
    # Each row has its own place: where it is found on the objects.
    torch.testing.assert_close(torch.tensor(tokens.info.places), run.select().places[order])
