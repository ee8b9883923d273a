"""What a file holds, wrong in one place: every field in turn, also nested ones."""

import copy
import json

import torch
from hypothesis import settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from helpers.hostile import hostile
from keyorbit.errors import InputError

# For what takes tenths of a second: a quarter of the examples.
FEWER = settings(max_examples=max(5, settings().max_examples // 4))


def places(values, most=400):
    """The paths of all fields of nested values, as tuples of keys and numbers; of long lists the first two items."""
    found, left = [], [((), values)]
    while left and len(found) < most:
        path, value = left.pop(0)
        items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
        for key, item in items:
            found.append((*path, key))
            left.append(((*path, key), item))
    return found


def replaced(values, path, value):
    """A copy with another value there."""
    made = copy.deepcopy(values)
    if not path:
        return value
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return made


def removed(values, path):
    """A copy without what is there."""
    made = copy.deepcopy(values)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return made


@st.composite
def spoiled(draw, values, more=()):
    """One field replaced by a hostile value, removed, or a new one; ``more`` are names of fields that are left out."""
    path = draw(st.sampled_from([(), *places(values), *((name,) for name in more), ("unheard_of",)]))
    there = bool(path) and path in places(values)
    if there and draw(st.integers(0, 9)) == 0:
        return path, removed(values, path)
    return path, replaced(values, path, draw(hostile()))


def as_json(values):
    """JSON as Python writes it: NaN and infinity too, and lone surrogates escaped."""
    return json.dumps(values)


def outcome(call):
    """What came of a call: "accepted", or "one sentence". All other exceptions leave."""
    said = ""
    try:
        call()
    except InputError as error:
        said = str(error)
    assert "\n" not in said, said
    return "one sentence" if said else "accepted"


@st.composite
def damaged(draw, data):
    """The bytes of a file, cut, flipped, emptied, or begun with a lie: 8 bytes tell how long the header is."""
    place = st.integers(0, len(data) - 1)
    match draw(st.sampled_from(["cut", "flip", "flip the header", "length", "other"])):
        case "cut":
            return data[: draw(place)]
        case "flip" | "flip the header" as where:
            end = len(data) if where == "flip" else min(len(data), 8 + int.from_bytes(data[:8], "little"))
            at, bit = draw(st.integers(0, end - 1)), draw(st.integers(0, 7))
            return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        case "length":
            return draw(st.sampled_from([0, 1, len(data), 2**31, 2**63, 2**64 - 1])).to_bytes(8, "little") + data[8:]
    return draw(st.binary(max_size=64))


def rewritten(path, tensors=None, **metadata):
    """Write a safetensors file anew with other tensors, or other metadata."""
    with safe_open(path, "pt") as file:
        kept, old = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(kept if tensors is None else tensors, path, metadata=(old or {}) | metadata)


@st.composite
def hostile_tensor(draw, like):
    """A tensor of another type or shape, or with numbers that no state has."""
    value = draw(st.sampled_from([float("nan"), float("inf"), 1e38, -1e38, 0.0]))
    match draw(st.sampled_from(["value", "one value", "type", "shape", "empty", "number"])):
        case "value":
            return torch.full(like.shape, value, dtype=torch.float64).to(like.dtype)  # infinite where it does not fit
        case "one value":
            made = like.clone().reshape(-1)
            made[draw(st.integers(0, len(made) - 1))] = torch.tensor(value, dtype=torch.float64).to(like.dtype)
            return made.reshape(like.shape)
        case "type":
            return like.nan_to_num().to(draw(st.sampled_from([torch.int64, torch.bool, torch.float64, torch.float16])))
        case "shape":
            return torch.zeros(draw(st.sampled_from([(1,), (2, 3), (1, 1), (3, 0), (0, 3), (1, 2, 3), (70_000, 1)])))
        case "empty":
            return torch.zeros(0)
    return torch.tensor(value)
