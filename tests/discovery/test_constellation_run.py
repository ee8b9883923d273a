"""Discovery of a constellation finds points that stay on objects that turn."""

import math
from dataclasses import replace

import torch

from helpers.slabs import picture, rotation
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.maps import token_heatmaps
from keyorbit.diffusion.model_facts import ModelFacts
from keyorbit.diffusion.prepare import Shown
from keyorbit.diffusion.queries import LayerQueries, QueryCache
from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.discover import discover_from, start_run
from keyorbit.geometry.constellation import (
    ConstellationConfig,
    read_constellation,
)
from keyorbit.geometry.hull import silhouette_distance
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.geometry.warps import Warp
from keyorbit.ranks import Ranks

CAMERAS = zero123plus_cameras("v1.2")


LAYOUT, SIDE = Layout(3, 2), 32


KNOWN = SettledConfig(layers=("layer",), maps="logits", rate=0.1, temperature=0.3, prepare=PrepareConfig().settled(0))


class KnownObjects:
    """A source whose queries hold where each pixel's surface is on the object, which stands in any direction."""

    versions, device = 1, torch.device("cpu")

    def __init__(self, count, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.mark = ""
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

    def ahead(self, numbers):
        pass

    def maps(self, number, tokens):
        query = LayerQueries("layer", (3 * SIDE, 2 * SIDE), self.items[number], None, None)
        return QueryCache((query,), 1).maps(tokens, slice(None), "logits")


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
