"""Silhouettes: by colour on a plain background, by the model's queries on any other."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

import keyorbit as ko
from keyorbit.data import ObjectViews
from keyorbit.prepare import object_views
from keyorbit.queries import LayerQueries
from keyorbit.silhouettes import model_silhouettes, plain_background, silhouettes, silhouettes_from_queries
from keyorbit.synthetic.probe import as_object
from keyorbit.synthetic.samples import SampleSpec, make_samples
from keyorbit.views import Layout

LAYOUT = Layout(3, 2)


@pytest.fixture(scope="module")
def backend():
    return ko.load_backend("tiny")


@pytest.fixture(scope="module")
def chairs():
    return [as_object(s) for s in make_samples([SampleSpec("chair", 300000 + i, 64) for i in range(3)], 1)]


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def overlap(found, truth):
    return float((found & truth).sum() / (found | truth).sum())


def cluttered(thing, seed):
    """The object's views before soft patches of many colours, the same for no two views."""
    patches = torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(seed))
    ground = F.interpolate(patches, size=(64, 64), mode="bicubic").clamp(0, 1)
    return torch.where(thing.masks[:, None], thing.views, ground)


def layer(features, name="layer"):
    """Features [view channel side side] as one grid's queries of two heads."""
    side = features.shape[-1]
    query = rearrange(features, "(R C) (n d) r c -> 1 n (R r C c) d", R=3, C=2, n=2)
    return LayerQueries(name, (3 * side, 2 * side), query, None, None)


def planted():
    """Discs, one of which touches the border; queries of two sizes that differ on them, and noise."""
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    middles = [(8, 8), (5, 9), (11, 6), (8, 3), (7, 8), (9, 9)]
    truth = torch.stack([(y - a).square() + (x - b).square() < 16 for a, b in middles])
    inside, outside = noise(8, seed=1), noise(8, seed=2)
    fine = torch.where(truth[:, None], inside[:, None, None], outside[:, None, None]) + 0.3 * noise(
        6, 8, 16, 16, seed=3
    )
    coarse = F.avg_pool2d(fine, 2) + 0.3 * noise(6, 8, 8, 8, seed=4)
    return [layer(coarse, "coarse"), layer(fine, "fine")], truth


def test_planted_discs_are_found_from_queries():
    layers, truth = planted()
    assert overlap(silhouettes_from_queries(layers, LAYOUT, (16, 16)), truth) > 0.95
    bigger = silhouettes_from_queries(layers, LAYOUT, (64, 64))
    assert overlap(bigger, truth.repeat_interleave(4, 1).repeat_interleave(4, 2)) > 0.85


def test_a_layers_scale_and_offset_change_nothing():
    layers, _ = planted()
    louder = [LayerQueries(x.name, x.size, 100 * x.query + 7, None, None) for x in layers[:1]] + layers[1:]
    first, second = (silhouettes_from_queries(group, LAYOUT, (16, 16)) for group in (layers, louder))
    assert (first == second).float().mean() > 0.995


def test_plain_is_told_from_not_plain(chairs):
    assert plain_background(chairs[0].views).all()
    assert not plain_background(cluttered(chairs[0], 0)).any()


def test_the_model_finds_objects_on_cluttered_ground(backend, chairs):
    by_model, by_colour = [], []
    for i, thing in enumerate(chairs):
        views = cluttered(thing, i)
        by_model.append(overlap(model_silhouettes(views, thing.input_image, backend), thing.masks))
        by_colour.append(overlap(silhouettes(views), thing.masks))
    assert sum(by_model) / 3 > sum(by_colour) / 3 + 0.1
    assert min(by_model) > 0.3


def test_preparation_asks_the_model_only_where_it_has_to(backend, chairs, monkeypatch):
    asked = []
    monkeypatch.setattr("keyorbit.prepare.model_silhouettes", lambda *_: asked.append(1) or chairs[0].masks)
    thing, generator = chairs[0], torch.Generator().manual_seed(0)
    bare = ObjectViews("bare", thing.input_image, thing.views)
    busy = ObjectViews("busy", thing.input_image, cluttered(thing, 0))
    masked = ObjectViews("masked", thing.input_image, cluttered(thing, 0), thing.masks)
    for shown, times in ((bare, 0), (masked, 0), (busy, 1)):
        _, masks, _ = object_views(shown, backend, generator)
        assert len(asked) == times
        assert overlap(masks, thing.masks) > 0.9
