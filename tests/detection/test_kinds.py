"""Detection without a run takes the tokens that know an object best."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from keyorbit.detection.confidence import Confidence
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.kinds import KindDetector, together
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.choices import SHIPPED_KINDS
from keyorbit.diffusion.paths import shipped_tokens
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.output.write import detection_dict
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample


@pytest.mark.parametrize("kind", SHIPPED_KINDS)
def test_tokens_of_every_trained_kind_ship(kind):
    tokens = Tokens.load(shipped_tokens(kind))
    assert (len(tokens), tokens.info.objects, tokens.info.model) == (16, 60, "tiny")
    assert tokens.info.statistics is not None


def test_objects_of_each_kind_are_read_by_their_own_tokens():
    """Objects that the tokens were not found on, with their own views; the model sees each once."""
    tokens = {kind: Tokens.load(shipped_tokens(kind)) for kind in SHIPPED_KINDS}
    detector = KindDetector(load_backend("tiny"), tokens, DetectConfig(noises=1))
    for kind in SHIPPED_KINDS:
        thing = as_object(make_sample(SampleSpec(kind, 2 * MAX_OBJECTS)))
        recording = detector.record(thing)
        found = detector.read(recording)
        assert found.kinds[0][0] == kind
        assert {name for name, _ in found.kinds} == set(SHIPPED_KINDS)
        assert [p for _, p in found.kinds] == sorted((p for _, p in found.kinds), reverse=True)
        alone = detector.kinds[kind].read(recording)
        assert (found.keypoints_3d.xyz == alone.keypoints_3d.xyz).all()
        told = detection_dict(found)
        assert told["kind"] == kind
        assert told["kinds"][kind] == pytest.approx(found.confidence.known, abs=1e-6)
        assert "kind" not in detection_dict(alone)


@pytest.fixture
def two(backend):
    some = [untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3, seed=seed)) for seed in (0, 1)]
    return KindDetector(backend, dict(zip(("first", "second"), some, strict=True)), DetectConfig(1))


def test_the_surest_wins_and_the_first_where_none_is_surer(two, objects, monkeypatch):
    recording, reading, known = two.record(objects[0]), KeypointDetector.read, {"first": 0.2, "second": 0.6}

    def read(detector, recording):
        name = next(name for name, one in two.kinds.items() if one is detector)
        found = reading(detector, recording)
        return replace(found, confidence=Confidence(known[name], found.keypoints_2d.score[0]))

    monkeypatch.setattr(KeypointDetector, "read", read)
    found = two.read(recording)
    # Odds of 1/4 and 3/2, halved as either kind is as likely: 1/8 and 3/4 of 1 7/8.
    assert found.kinds == (("second", pytest.approx(0.4)), ("first", pytest.approx(1 / 15)))
    assert found.confidence.known == pytest.approx(0.4)
    alone = reading(two.kinds["second"], recording).keypoints_2d.score[0]
    assert torch.allclose(found.confidence.keypoints, alone * (0.4 / 0.6))
    known["first"] = 0.6
    assert two.read(recording).kinds == (("first", pytest.approx(3 / 10)), ("second", pytest.approx(3 / 10)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_kinds_exclude_one_another(alone):
    found = together(alone)
    assert all(0 <= one <= 1 for one in found)
    assert sum(found) <= 1 + 1e-9
    for i, j in itertools.combinations(range(len(alone)), 2):
        if alone[i] < alone[j]:
            assert found[i] <= found[j]
    if len(alone) == 1:
        assert found == pytest.approx(alone)
    # Whoever asks among more kinds has to be surer.
    assert together([*alone, 0.0])[0] <= found[0]


def test_kinds_are_as_bayes_counts_them():
    """Of objects, half of no kind and a sixth of each of three, each with clues that are as likely as the odds say."""
    alone = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
    ratios = alone / (1 - alone)  # how much likelier the clues are with the kind than with none
    joint = torch.cat([torch.tensor([0.5], dtype=torch.float64), ratios / 6])
    assert together(alone.tolist()) == pytest.approx((joint / joint.sum())[1:].tolist())


def test_without_confidence_there_is_no_choice(two, objects):
    assert two.fingerprint not in {one.fingerprint for one in two.kinds.values()}
    with pytest.raises(InputError, match="--kind"):
        two.read(two.record(objects[0]))


def test_kinds_that_are_recorded_otherwise_do_not_mix(backend, two):
    other = untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3, maps="attention"))
    with pytest.raises(InputError, match="another way"):
        KindDetector(backend, {"first": two.tokens, "other": other}, DetectConfig(1))
