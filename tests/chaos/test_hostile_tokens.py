"""Files of tokens, wrong in one place: one sentence, or tokens that are used as any others."""

import json
from dataclasses import asdict, fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from helpers.hostile import answer
from helpers.spoiling import FEWER, damaged, hostile_tensor, outcome, spoiled
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.tokens import FORMAT, Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.discovery.config import DiscoverConfig, plain_settings

WIDTH = 16
INFO = TokensInfo(
    layers=("mid_block.attentions.0.transformer_blocks.0.attn2",),
    timestep=(100, 300),
    seed=3,
    settings=plain_settings(DiscoverConfig(num_tokens=2, num_candidates=3)),
    objects=3,
    libraries={"torch": "2"},
    pairs=((0, 1),),
    places=((0.1, 0.2, 0.3), (0.3, -0.2, 0.1), (0.0, 0.0, 0.5)),
    form=((0.0, 0.0, 0.1), (0.3, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.4)),
)
HEADER = {"format": FORMAT, "info": json.loads(json.dumps(asdict(INFO)))}
TENSORS = {"embedding": torch.ones(2, WIDTH), "helpers": torch.ones(1, WIDTH)}
NAMES = [("info", item.name) for item in fields(TokensInfo)]


def write(path, header=HEADER, tensors=TENSORS):
    save_file(tensors, path, metadata={"keyorbit": json.dumps(header)})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens") / "tokens.safetensors"


@given(found=spoiled(HEADER))
def test_every_field_of_the_header(found, path, backend, tally):
    place, header = found
    write(path, header)
    come = outcome(lambda: KeypointDetector(backend, Tokens.load(path)))
    tally["tokens", "a field of the header", come] += 1
    if place and place[-1] == "unheard_of":
        assert come == "one sentence"


@given(data=st.data())
def test_every_tensor(data, path, backend, tally):
    name = data.draw(st.sampled_from([*TENSORS, "other"]))
    made = data.draw(hostile_tensor(TENSORS.get(name, torch.ones(2, 2))))
    write(path, tensors=TENSORS | {name: made})
    tally["tokens", "a tensor", outcome(lambda: KeypointDetector(backend, Tokens.load(path)))] += 1


@given(data=st.data())
def test_every_byte(data, path, tally):
    write(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    tally["tokens", "damaged bytes", outcome(lambda: Tokens.load(path))] += 1


@FEWER
@given(data=st.data())
def test_the_command_line_says_it_in_one_sentence(data, path, model_folder, chairs, tmp_path_factory, tally):
    write(path, HEADER | {"info": data.draw(spoiled(HEADER["info"]))[1]})
    out = tmp_path_factory.mktemp("out") / "new"
    came = answer("detect", path, next(chairs.glob("*/cond.png")), "--model", model_folder, "--out", out, "--noises", 1)
    good = came.status == 0 and (out / "keypoints.json").exists()
    tally["tokens", "detect", "one sentence" if came.sentence else "accepted"] += 1
    assert good or (came.sentence and not out.exists()), came


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timestep": 5000}, r"info\.timestep cannot be 5000; it must be a whole number >= 0 and <= 999"),
        ({"timestep": []}, r"info\.timestep cannot be \[\]; it must be a whole number .* or a list of length >= 1"),
        ({"mode": "both"}, r"info\.mode cannot be 'both'; it must be 'alone' or 'isolated' or 'joint'"),
        ({"layers": [""]}, r"info\.layers\[0\] cannot be ''; it must be a string of length >= 1"),
        ({"pairs": [[0, 2]]}, "pairs of tokens with numbers up to 1"),
        ({"places": [[0, 0, 0]]}, "1 places for 2 tokens and 1 helpers: there must be one for each, or none"),
        ({"form": [[0, 0, 0]]}, "form has 1 rows; it has 4"),
        ({"places": [[0, 0, 1e38]] * 3}, r"info\.places\[0\]\[2\] cannot be 1e\+38"),
    ],
)
def test_the_field_is_named_with_what_it_may_hold(changes, words, path):
    write(path, {"format": FORMAT, "info": HEADER["info"] | changes})
    with pytest.raises(ValueError, match=words):
        Tokens.load(path)


def test_tokens_without_newer_fields_are_read(path):
    """As versions wrote them that knew of no helpers, places, pairs and cameras."""
    old = {k: v for k, v in HEADER["info"].items() if k not in ("pairs", "places", "form", "cameras_of", "settings")}
    write(path, {"format": FORMAT, "info": old}, {"embedding": TENSORS["embedding"].half()})
    assert len(Tokens.load(path)) == 2
