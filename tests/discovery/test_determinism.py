"""A discovery and a detection ask a GPU for nothing that it can only do in an order of its own."""

from dataclasses import replace

import pytest

from helpers.unordered import Refused
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.evaluation.evaluate import evaluate

FEW = DiscoverConfig(num_tokens=2, num_candidates=3, steps=1, batch=2, planting=1, exemplars=1)
ONCE = replace(FEW, prepare=PrepareConfig(noises=1))


@pytest.mark.parametrize(
    "config",
    [
        replace(FEW, method="constellation"),
        replace(FEW, method="consistency", maps="attention"),
        replace(ONCE, method="consistency", maps="stablekeypoints"),
        replace(ONCE, mode="joint"),
    ],
)
def test_discovery_detection_and_evaluation_have_an_order(config, backend, objects, deterministic):
    with Refused() as seen:
        tokens = discover(backend, objects[:2], config)
        detector = KeypointDetector(backend, tokens, DetectConfig(noises=1))
        found = [detector.detect_object(thing) for thing in objects]
        evaluate(found, objects)
    assert not seen.found


def test_discovery_of_single_views_has_an_order(stable_diffusion, objects, deterministic):
    pictures = [replace(thing, views=None, masks=None, cameras=None, truth=None) for thing in objects[:2]]
    with Refused() as seen:
        KeypointDetector(stable_diffusion, discover(stable_diffusion, pictures, FEW)).detect(pictures[0])
    assert not seen.found
