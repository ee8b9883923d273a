"""Probabilities from planted clues, their order and their limits, and what is said of them."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.worlds import detections, make_world
from keyorbit.detection.confidence import KEYPOINT, NOISE, OBJECT, TINY, Confidence, confidence_of
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import Statistics, TokensInfo
from keyorbit.errors import InputError
from keyorbit.geometry.constellation import Reading
from keyorbit.geometry.keypoints import Keypoints3D

KNOWN = Statistics(4, (0.1, 0.2))


def reading(*stray):
    return Reading(torch.zeros(2, 3), torch.zeros(2, 3, 3), torch.ones(2), torch.tensor(stray or (0.1, 0.2)))


def points(*score):
    scores = torch.tensor(score or (0.9, 0.7))
    return Keypoints3D(torch.zeros(2, 3), scores, torch.zeros(2), torch.zeros(6, 2))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_planted_clues_give_the_probabilities_of_the_slow_sums():
    found = confidence_of(reading(0.2, 0.5), points(), KNOWN, 0.1)
    a, b, c, d = OBJECT
    logit = a * 0.2 + b * 0.8 + c * 0.1 + d
    assert found.known == pytest.approx(sigmoid(logit), abs=1e-6)
    a, b, c, d = KEYPOINT
    own = [a * 0.1 + b * 0.9 + c * logit + d, a * 0.3 + b * 0.7 + c * logit + d]
    torch.testing.assert_close(found.keypoints, torch.tensor([sigmoid(x) for x in own]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "worse",
    [
        (reading(0.2, 0.4), points(), KNOWN),
        (reading(), points(0.8, 0.6), KNOWN),
        (reading(), points(), KNOWN, 0.2),
        (reading(), points(), KNOWN, math.inf),
    ],
)
def test_whatever_speaks_against_an_object_lowers_every_probability(worse):
    good, bad = confidence_of(reading(), points(), KNOWN), confidence_of(*worse)
    assert bad.known < good.known
    assert (bad.keypoints < good.keypoints).all()


def test_of_keypoints_the_one_that_strays_or_has_the_lower_score_is_less_likely():
    strays = confidence_of(reading(0.1, 0.4), points(0.8, 0.8), KNOWN).keypoints
    scores = confidence_of(reading(), points(0.8, 0.5), KNOWN).keypoints
    assert strays[0] > strays[1]
    assert scores[0] > scores[1]


def test_a_keypoint_counts_only_so_much():
    far, further = (confidence_of(reading(0.1, stray), points(), KNOWN) for stray in (50.0, 5000.0))
    assert far.known == further.known > 0


def test_the_weights_are_those_that_docs_tell():
    text = (Path(__file__).parents[2] / "docs" / "confidence.md").read_text(encoding="utf-8")
    for weights in (OBJECT, KEYPOINT):
        assert ", ".join(map(str, weights)) in text


@pytest.mark.parametrize(
    ("known", "verdict", "words"),
    [
        (0.8, "known", "these tokens know this object (80%); about 2 of 2 keypoints are at their parts"),
        (0.79, "doubtful", "these tokens may not know this object (79%)"),
        (0.5, "doubtful", "these tokens may not know this object (50%)"),
        (0.49, "unknown", "these tokens do not know this object (49%): its keypoints mean nothing; give a picture"),
    ],
)
def test_the_verdict_and_the_sentence(known, verdict, words):
    found = Confidence(known, torch.tensor([0.9, 0.8]))
    assert found.verdict == verdict
    assert found.words.startswith(words)
    assert found.to_dict() == {"known": known, "verdict": verdict, "words": found.words}


def test_of_an_unknown_object_the_sentence_ends_with_what_there_is_to_say_of_the_model():
    chance = torch.tensor([0.1])
    assert Confidence(0.2, chance, TINY).words.endswith(f"discover tokens on its own kind; {TINY}")
    assert Confidence(0.9, chance, TINY).words == Confidence(0.9, chance).words


def test_a_picture_of_noise_is_not_known_however_good_what_was_made_of_it():
    found = Confidence(0.9, torch.tensor([0.9, 0.8]), TINY).of_noise()
    assert (found.known, found.verdict, found.keypoints.tolist()) == (0.0, "unknown", [0.0, 0.0])
    assert found.words.endswith(NOISE)


def test_without_statistics_or_a_constellation_nothing_is_said():
    assert confidence_of(reading(), points(), None) is None
    assert confidence_of(None, points(), KNOWN) is None
    assert confidence_of(reading(), None, KNOWN) is None


def test_keypoints_below_the_least_confidence_are_withheld():
    found = detections(make_world(1))[0]
    with pytest.raises(InputError, match="it is not known how far to trust them"):
        found.withholding(0.5)
    chance = torch.tensor([0.9, 0.5, 0.49, 0.8, 0.1])
    kept = replace(found, confidence=Confidence(0.9, chance)).withholding(0.5)
    assert kept.withheld == (2, 4)
    assert (kept.keypoints_3d.score > 0).tolist() == [True, True, False, True, False]
    assert (kept.keypoints_2d.score > 0).all(0).tolist() == [True, True, False, True, False]
    assert kept.trusted


def test_statistics_are_kept_in_the_file_and_go_with_chosen_tokens(tmp_path):
    tokens = Tokens(torch.zeros(2, 4), TokensInfo(statistics=KNOWN))
    tokens.save(tmp_path / "t.safetensors")
    assert Tokens.load(tmp_path / "t.safetensors").info.statistics == KNOWN
    chosen = tokens.select(torch.tensor([1])).info.statistics
    assert chosen == Statistics(4, (0.2,))


def test_statistics_of_another_number_of_keypoints_are_refused(tmp_path):
    Tokens(torch.zeros(3, 4), TokensInfo(statistics=KNOWN)).save(tmp_path / "t.safetensors")
    with pytest.raises(InputError, match="statistics of 2 keypoints for 3 tokens"):
        Tokens.load(tmp_path / "t.safetensors")
