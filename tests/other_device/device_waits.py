"""A GPU is not waited for: what a step of discovery or of a generation reads of the device, and writes to it."""

from dataclasses import replace

import pytest
import torch

import pretend_device
from helpers.counting import a_step_of
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.held import HeldCache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.discover import start_run
from keyorbit.discovery.memory import open_source
from keyorbit.evaluation.evaluate import detect_all
from keyorbit.ranks import Ranks
from other_device.common import FEW, NEAR


def second_step(source, config):
    """What the second step, of all objects, has to do with the device."""
    run = start_run(source, config, Ranks())
    run.begin(lambda done, total: None)
    run.step(0)
    with pretend_device.reads() as traffic:
        run.step(1)
    return traffic


def config_for(backend, objects, **changes):
    return replace(FEW, planting=1, steps=2, batch=len(objects), **changes).settled(backend)


# Of three objects. Each further one adds a product and its gradient for every size of layer.
@pytest.mark.parametrize(
    ("method", "maps", "most"),
    [("constellation", "logits", 160), ("constellation", "attention", 780), ("consistency", "logits", 620)],
)
def test_a_step_of_discovery_waits_for_nothing(method, maps, most, there, objects):
    config = config_for(there, objects, method=method, maps=maps)
    traffic = second_step(open_source(there, objects, config, Ranks(), lambda done, total: None), config)
    assert traffic.reads == []
    assert traffic.writes == []
    assert traffic.operations <= most


def test_a_step_of_single_views_waits_for_nothing(stable_diffusion_there, objects):
    pictures = [replace(thing, views=None, masks=None, cameras=None, truth=None) for thing in objects]
    config = config_for(stable_diffusion_there, pictures)
    source = open_source(stable_diffusion_there, pictures, config, Ranks(), lambda done, total: None)
    traffic = second_step(source, config)
    assert (traffic.reads, traffic.writes) == ([], [])


def test_a_step_from_a_cache_that_fits_the_device_waits_for_nothing(there, objects, tmp_path):
    cache = build_cache(there, objects, plan_cache(there, objects, FEW), tmp_path / "cache")
    traffic = second_step(HeldCache(cache), config_for(there, objects))
    assert (traffic.reads, traffic.writes) == ([], [])


def test_no_step_of_a_generation_waits_or_copies(there, objects):
    def generate(steps):
        return there.generate([objects[0].input_image], torch.Generator().manual_seed(0), steps)

    _, waits, copies = a_step_of(generate)
    assert (waits, copies) == (0, 0)


def test_objects_are_recorded_together_here(there, objects, tokens):
    """Eight by default, and each as if it were alone."""
    detector, forwards = KeypointDetector(there, tokens, DetectConfig(noises=1)), []
    hook = there.unet.register_forward_pre_hook(lambda _, args: forwards.append(len(args[0])))
    found = detect_all(detector, objects)
    hook.remove()
    assert forwards == [3, 3]
    for one, thing in zip(found, objects, strict=True):
        torch.testing.assert_close(one.keypoints_2d.xy, detector.detect_object(thing).keypoints_2d.xy, **NEAR)


def test_given_and_generated_views_go_through_together(there, objects, tokens, few_denoising_steps):
    bare = replace(objects[1], views=None, masks=None, cameras=None, truth=None)
    mixed = [objects[0], bare, objects[2]]
    detector = KeypointDetector(there, tokens, DetectConfig(noises=1))
    for one, thing in zip(detect_all(detector, mixed), mixed, strict=True):
        torch.testing.assert_close(one.keypoints_2d.xy, detector.detect_object(thing).keypoints_2d.xy, **NEAR)


def test_given_and_generated_views_lie_in_one_cache(there, objects, tmp_path, few_denoising_steps):
    mixed = [objects[0], replace(objects[1], views=None, masks=None, cameras=None, truth=None)]
    cache = build_cache(there, mixed, plan_cache(there, mixed, FEW), tmp_path / "cache")
    assert len(cache) == 2
