"""Results tell what they are in a line, whatever they hold."""

import pytest
import torch

from keyorbit.detection.detector import KeypointDetector
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.evaluation.evaluate import evaluate
from keyorbit.geometry.keypoints import Keypoints2D


@pytest.fixture(scope="module")
def results(backend, objects):
    tokens = untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3))
    detector = KeypointDetector(backend, tokens)
    recording = detector.record(objects[0])
    found = detector.detect_object(objects)
    return {
        "tokens": tokens,
        "recording": recording,
        "found": found[0],
        "flat": found[0].keypoints_2d,
        "points": found[0].keypoints_3d,
        "scores": evaluate(found, objects),
        "thing": objects[0],
    }


def test_results_tell_what_they_are_in_a_line(results, stable_diffusion, objects):
    assert all(len(repr(one)) < 160 for one in results.values())
    assert repr(results["tokens"]).startswith("Tokens(3 of width ")
    assert repr(results["found"]).startswith(f"Detection({objects[0].name!r}, 3 keypoints, 6 views, in 3D with a repro")
    assert repr(results["flat"]).startswith("Keypoints2D(6 views, 3 keypoints, scores 0.")
    assert repr(results["points"]).startswith("Keypoints3D(3 keypoints, scores 0.")
    assert repr(results["scores"]).startswith("Evaluation(3 objects, landmarks within ")
    assert repr(results["recording"]).startswith(f"Recording({objects[0].name!r}, 6 views, ")
    assert (
        repr(results["thing"])
        == f"ObjectViews({objects[0].name!r}, 16x16 RGB, 6 views, with cameras, 12 true landmarks)"
    )
    tokens = untrained(stable_diffusion, DiscoverConfig(num_tokens=2, num_candidates=2))
    flat = KeypointDetector(stable_diffusion, tokens).detect_object(objects[0])
    assert repr(flat) == f"Detection({objects[0].name!r}, 2 keypoints, 1 view, in 2D only)"
    empty = Keypoints2D(torch.zeros(0, 0, 2), torch.zeros(0, 0))
    assert repr(empty) == "Keypoints2D(0 views, 0 keypoints)"
