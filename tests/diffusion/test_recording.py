"""Recorded queries give the maps that the UNet itself gives, and do not depend on what is recorded beside them."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.prepare import object_generator, prepare
from keyorbit.diffusion.recording import BATCH, joined, record, record_each, settled_batch, unet_maps
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews

ROUNDING = {"atol": 1e-5, "rtol": 1e-4}
STEPS = 2


@pytest.fixture
def in_few_steps(backend, monkeypatch):
    monkeypatch.setattr(backend, "generate", partial(backend.generate, steps=STEPS))


def with_generators(objects):
    return ((thing, object_generator(0, i)) for i, thing in enumerate(objects))


def assert_same(found, alone):
    assert len(found) == len(alone)
    for ours, theirs in zip(found, alone, strict=True):
        assert ours.thing is theirs.thing
        torch.testing.assert_close(ours.views, theirs.views, **ROUNDING)
        assert torch.equal(ours.shown.warps, theirs.shown.warps)
        assert torch.equal(ours.shown.distance, theirs.shown.distance)
        assert ours.queries.keys() == theirs.queries.keys()
        for which, cache in ours.queries.items():
            assert cache.versions == theirs.queries[which].versions
            for layer, other in zip(cache.layers, theirs.queries[which].layers, strict=True):
                torch.testing.assert_close(layer.query, other.query, **ROUNDING)
                torch.testing.assert_close(layer.text_normalizer, other.text_normalizer, **ROUNDING)


@pytest.mark.parametrize(("kind", "versions"), [("logits", {"noises": 3}), ("attention", {"warps": 1})], ids=str)
@pytest.mark.parametrize("given", ["all", "some", "none"])
def test_an_object_does_not_depend_on_its_neighbours(backend, objects, kind, versions, given, in_few_steps):
    """Of three versions each, two objects fill a forward of the UNet, and the third has one of its own."""
    config = RecordConfig(("*",), kind, PrepareConfig(**versions).settled(300), condition=True)
    shown = {"all": (0, 1, 2), "some": (0, 2), "none": ()}[given]
    things = [x if i in shown else ObjectViews(x.name, x.input_image) for i, x in enumerate(objects)]
    alone = [record(thing, backend, config, generator) for thing, generator in with_generators(things)]
    assert_same(list(record_each(with_generators(things), backend, config, 3)), alone)
    one_by_one = record_each(with_generators(things), backend, config)
    for ours, theirs in zip(one_by_one, alone, strict=True):
        for layer, other in zip(ours.queries["grid"].layers, theirs.queries["grid"].layers, strict=True):
            assert torch.equal(layer.query, other.query)


def test_pictures_of_a_model_of_one_view_do_not_depend_on_their_neighbours(stable_diffusion, objects):
    things = [ObjectViews(x.name, x.input_image) for x in objects]
    config = RecordConfig(stable_diffusion.default_layers, "attention", PrepareConfig(noises=3).settled(0))
    alone = [record(thing, stable_diffusion, config, generator) for thing, generator in with_generators(things)]
    assert_same(list(record_each(with_generators(things), stable_diffusion, config, 2)), alone)


def test_a_batch_takes_the_forwards_of_one_object(backend, objects, in_few_steps):
    """With views given: one run of both passes for two versions of each; generated: also those of the steps."""
    things = [objects[i % 3] for i in range(8)]
    config = RecordConfig(("*",), "logits", PrepareConfig(noises=2).settled(300), condition=True)
    sizes = []
    hook = backend.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    counts = {}
    for batch in (1, 4, 8):
        sizes.clear()
        assert len(list(record_each(with_generators(things), backend, config, batch))) == 8
        counts[batch] = list(sizes)
    bare = [ObjectViews(thing.name, thing.input_image) for thing in objects]
    for batch in (1, 3):
        sizes.clear()
        list(record_each(with_generators(bare), backend, config, batch))
        counts["generated", batch] = list(sizes)
    hook.remove()
    assert counts[1] == [2] * 16
    assert counts[4] == [8] * 4
    assert counts[8] == [16] * 2
    assert counts["generated", 1] == [2] * 3 * 2 * (STEPS + 1)
    assert counts["generated", 3] == [6] * 2 * (STEPS + 1)


def test_objects_are_taken_a_batch_at_a_time(backend, objects):
    config, taken = RecordConfig(("mid_block.*",), "logits", PrepareConfig().settled(300)), []

    def noted():
        for i in range(5):
            taken.append(i)
            yield objects[i % 3], object_generator(0, i)

    recordings = record_each(noted(), backend, config, 2)
    assert taken == []
    for done in (2, 2, 4, 4, 5):
        next(recordings)
        assert len(taken) == done
    assert next(recordings, None) is None


def test_objects_that_do_not_fit_are_named_in_a_batch_too(backend, objects):
    config = RecordConfig(("*",), "logits", PrepareConfig().settled(300))
    short = replace(objects[1], name="short", views=objects[1].views[:4], masks=None)
    with pytest.raises(InputError, match=r"^short has 4 views; the model has 6: give objects with 6, or .*--layout"):
        list(record_each(with_generators([objects[0], short]), backend, config, 2))
    with pytest.raises(InputError, match="batch must be 1 or more, not 0"):
        list(record_each(with_generators(objects), backend, config, 0))


def test_only_the_cpu_goes_one_by_one():
    assert settled_batch(None, torch.device("cpu")) == 1
    assert settled_batch(None, torch.device("meta")) == BATCH
    assert settled_batch(3, torch.device("cpu")) == 3


@pytest.mark.parametrize("kind", ["logits", "attention"])
def test_the_cache_gives_the_unets_own_maps(backend, objects, kind):
    config = RecordConfig(("*",), kind, PrepareConfig(warps=1).settled(300))
    tokens = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    recordings = [record(thing, backend, config, object_generator(0, i)) for i, thing in enumerate(objects)]
    cached = joined(recordings).maps(tokens, torch.tensor([2, 3]), kind)  # the second object's two versions
    item, _, _ = prepare(objects[1], backend, config.prepare, object_generator(0, 1))
    with torch.no_grad():
        direct = unet_maps(backend, [item], tokens, "*", "isolated", kind)
    if kind == "attention":
        for ours, theirs in zip(cached, direct, strict=True):
            torch.testing.assert_close(ours.maps.mean(1, keepdim=True), theirs.maps, atol=1e-6, rtol=1e-4)
    else:
        for ours in cached:
            same = [layer.maps.mean(1) for layer in direct if layer.size == ours.size]
            expected = torch.stack(same).sum(0) * len(cached) / len(direct)
            torch.testing.assert_close(ours.maps[:, 0], expected, atol=1e-5, rtol=1e-4)


def test_blind_draws_are_those_of_the_negative_condition_and_the_others_stay(backend, objects):
    """Of three draws of noise of each of two timesteps, the last one is without the input picture."""
    shown = PrepareConfig(noises=3).settled((100, 300))
    sighted = RecordConfig(("*",), "logits", shown, condition=True)
    blind = replace(sighted, blind=1)
    assert (sighted.sighted, blind.sighted) == ([*range(6)], [0, 1, 3, 4])
    other = ObjectViews(objects[0].name, objects[1].input_image, objects[0].views, objects[0].masks)
    found = {
        name: record(thing, backend, config, object_generator(0, 0)).queries["grid"].layers[0].query
        for name, thing, config in (
            ("sighted", objects[0], sighted),
            ("blind", objects[0], blind),
            ("other picture", other, blind),
        )
    }
    assert torch.equal(found["blind"][blind.sighted], found["sighted"][blind.sighted])
    # What is not seen does not matter.
    assert torch.equal(found["blind"][[2, 5]], found["other picture"][[2, 5]])
    assert not torch.allclose(found["blind"][[2, 5]], found["sighted"][[2, 5]], atol=1e-3)
    assert not torch.allclose(found["blind"][[0]], found["other picture"][[0]], atol=1e-3)
