"""Recorded queries give the maps that the UNet itself gives."""

import pytest
import torch

from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.prepare import object_generator, prepare
from keyorbit.diffusion.recording import joined, record, unet_maps


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
