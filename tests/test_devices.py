"""The device that is chosen, and what torch says of it. No GPU is needed: torch's answers are given here."""

import jaxtyping
import pytest
import torch

from keyorbit.devices import AUTO, device_words, has_bfloat16, named_device, resolve_device
from keyorbit.diffusion.backends.loading import device_and_dtype, dtype_on
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras


@pytest.mark.parametrize(
    ("cuda", "mps", "processes", "found"),
    [
        (True, True, 1, "cuda"),
        (True, False, 4, "cuda"),
        (False, True, 1, "mps"),
        (False, True, 2, "cpu"),
        (False, False, 1, "cpu"),
    ],
)
def test_the_first_device_there_is(cuda, mps, processes, found, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device(AUTO, processes) == found
    assert resolve_device("cuda:1", processes) == "cuda:1"


def test_the_type_of_random_weights(monkeypatch):
    assert device_and_dtype("cpu", AUTO) == (torch.device("cpu"), torch.float32)
    assert dtype_on(torch.device("meta"), AUTO) == torch.float16
    assert dtype_on(torch.device("meta"), "bfloat16") == torch.bfloat16
    for name in ("meta", "hpu", "privateuseone", "mkldnn"):
        with pytest.raises(InputError, match=f"device '{name}' is not to be had here"):
            device_and_dtype(name, AUTO)
    with pytest.raises(InputError, match="device 'quantum' is not to be had here"):
        device_and_dtype("quantum", AUTO)


def test_words_for_a_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")
    assert device_words(torch.device("cuda:1")) == "cuda:1 (GPU number 1)"
    assert device_words(torch.device("cpu")) == "cpu"


class Card:
    """Stands for ``torch.cuda.device``: entering it would start CUDA."""

    def __init__(self, device):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("emulates", [True, False])
def test_emulated_bfloat16_does_not_count(native, emulates, monkeypatch):
    def with_emulation(including_emulation=True):
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "device", Card)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", with_emulation if emulates else lambda: native)
    assert has_bfloat16(torch.device("cuda")) == native
    assert has_bfloat16(torch.device("cpu"))
    assert not has_bfloat16(torch.device("mps"))


def test_what_is_moved_to_a_device_that_is_not_there_names_it_and_those_that_are():
    for thing in (
        zero123plus_cameras(),
        Tokens(torch.zeros(2, 3)),
        Keypoints2D(torch.zeros(1, 2, 2), torch.ones(1, 2)),
    ):
        for name in ("nope", "cuda:3"):
            with pytest.raises(InputError, match=rf"device '{name}' is not to be had here.*; torch has cpu"):
                thing.to(name)
        moved = thing.to("cpu", torch.float64)
        assert type(moved) is type(thing)


@pytest.mark.parametrize(
    "make",
    [
        zero123plus_cameras,
        lambda: Tokens(torch.zeros(2, 3)),
        lambda: Keypoints2D(torch.zeros(1, 2, 2), torch.ones(1, 2)),
    ],
)
def test_a_type_may_be_given_by_name_and_is_one_of_floats(make, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as at a user's

    def types(thing):
        values = thing.state_dict() if isinstance(thing, Tokens) else vars(thing)
        return {value.dtype for value in values.values() if isinstance(value, torch.Tensor)}

    assert types(make().to(dtype="float16")) == types(make().to("cpu", "float16")) == {torch.float16}
    for wrong in ("int8", "nonsense", "nn", 3, torch.int32):
        with pytest.raises(InputError, match=f"dtype '{wrong}' is no type of floats: give float16"):
            make().to(dtype=wrong)
        with pytest.raises(InputError, match="is no type of floats"):
            make().to("cpu", wrong if wrong != 3 else "3")
    with pytest.raises(InputError, match=r"device '\[1\]' is not to be had here; torch has cpu"):
        make().to([1])


def test_memory_that_runs_out_is_not_taken_for_a_device_that_is_not_there():
    with pytest.raises(RuntimeError, match="out of memory"), named_device("cuda"):
        raise RuntimeError("CUDA out of memory")
