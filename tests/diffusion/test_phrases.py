"""Tokens made of phrases: the text encoder's rows, which the tiny model's attention was taught."""

from importlib.resources import files
from pathlib import Path

import jaxtyping
import pytest
import torch

from keyorbit import KeypointDetector, Tokens, load_backend, load_dataset
from keyorbit.diffusion.backends.text import check_phrase, encode_phrases
from keyorbit.errors import InputError

EXAMPLES = Path(str(files("keyorbit"))) / "assets" / "examples"
FEET = ["lower front left leg", "lower front right leg", "lower rear left leg", "lower rear right leg"]
OF_FEET = ["foot front left", "foot front right", "foot back left", "foot back right"]


@pytest.fixture(scope="module")
def backend():
    return load_backend("tiny", "cpu")


def test_a_phrase_marks_what_it_names(backend):
    tokens = Tokens.from_phrases(backend, FEET)
    thing = load_dataset(str(EXAMPLES / "chair_2_00000"))[0]
    found = KeypointDetector(backend, tokens).detect_object(thing).keypoints_3d.xyz
    true = thing.truth.keypoints_3d[[thing.truth.names.index(name) for name in OF_FEET]]
    distances = torch.cdist(found, true)
    assert distances.argmin(1).tolist() == [0, 1, 2, 3]
    assert distances.diagonal().max() < 0.1  # of a diameter of 1


def test_they_are_the_rows_at_the_phrases_ends_and_keep_their_names(backend, tmp_path):
    made = Tokens.from_phrases(backend, ["lower  front left leg ", "seat"])
    parts = backend.parts
    assert torch.equal(made.embedding, encode_phrases(parts.tokenizer, parts.text_encoder, [FEET[0], "seat"]))
    made.save(tmp_path / "t.safetensors")
    again = Tokens.load(tmp_path / "t.safetensors")
    assert again.info == made.info
    assert again.info.names == (FEET[0], "seat")
    assert again.select(torch.tensor([1])).info.names == ("seat",)


@pytest.mark.parametrize(
    ("phrases", "words"),
    [
        ([], "at least one phrase"),
        (["seat", ""], "has no word"),
        (["zxq vbn"], "no word that the model's tokenizer knows"),
        (["Front  seat", "front seat"], "two phrases are equal"),
        (["leg " * 80], "tokens; the model reads 75"),
        ("seat", "phrases are a list, not one text"),
        (["seat", 3], "a phrase is a text, such as 'front left leg', not 3"),
        ([None], "a phrase is a text"),
        ([b"seat"], "a phrase is a text"),
        (3, "phrases are a list of texts"),
        (None, "phrases are a list of texts"),
        (["seat \udcff"], "has characters that are no text"),
        (["seat \x1b[31m"], "has characters that are no text"),
    ],
)
def test_what_is_no_phrase_is_refused(backend, phrases, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as at a user's
    with pytest.raises(InputError, match=words):
        Tokens.from_phrases(backend, phrases)


def test_a_phrase_that_is_too_long_is_told_once(backend, monkeypatch):
    said = []
    monkeypatch.setattr("transformers.tokenization_utils_base.logger.warning", lambda *words: said.append(words))
    backend.parts.tokenizer.deprecation_warnings.clear()  # the library warns once
    with pytest.raises(InputError, match="the model reads 75"):
        check_phrase(backend.parts.tokenizer, "leg " * 80)
    assert said == []


def test_a_word_that_is_cut_is_told(backend, caplog):
    check_phrase(backend.parts.tokenizer, "front left wheelbase")
    assert "wheelbase in the phrase" in caplog.text
    caplog.clear()
    check_phrase(backend.parts.tokenizer, "seat of the chair")
    assert caplog.text == ""
