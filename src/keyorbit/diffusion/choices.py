"""What can be chosen of a model and of how it is read, by name. It imports no library: the command line reads it."""

from typing import Annotated, Literal

from msgspec import Meta

from keyorbit.devices import AUTO
from keyorbit.errors import InputError

Mode = Literal["isolated", "joint"]
# Of tokens there is a third: they are the UNet's whole context, with no text before them, as in StableKeypoints.
TokensMode = Literal["isolated", "joint", "alone"]
MapKind = Literal["logits", "attention", "stablekeypoints"]
# How much noise the UNet sees, and the names or patterns of layers: one or several.
Timestep = Annotated[int, Meta(ge=0, le=999)]
Timesteps = Timestep | Annotated[tuple[Timestep, ...], Meta(min_length=1)]
# Of Zero123++'s sampler, and what is taken unless something else is asked for.
SamplingSteps = Annotated[int, Meta(ge=1, le=1000)]
Guidance = Annotated[float, Meta(ge=0, le=1000)]
STEPS, GUIDANCE = 28, 4.0
Layers = str | Annotated[tuple[str, ...], Meta(min_length=1)]
# Types that a model computes in; "auto" chooses among them: diffusion/precision.py.
DTYPES = ("float32", "bfloat16", "float16")
# What else they are called.
_SHORT = {"fp32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
# Of Zero123++; and with the rigs of geometry/rigs.py whose views are tiled as its own are.
VERSIONS = ("v1.1", "v1.2")
CAMERAS = (*VERSIONS, "zero123plus-v1.1", "zero123plus-v1.2", "instantmesh")
# What inspect writes into its JSON.
INSPECT_FORMAT = "keyorbit-inspect-1"
# Models that can be inspected without their files.
ARCHITECTURE_NAMES = ("zero123plus-v1.2", "zero123plus-v1.1", "stable-diffusion-1.5", "stable-diffusion-2.1")


def check_dtype(given: object) -> str:
    """The type that a model is loaded in, as :data:`DTYPES` has it, or ``auto``.

    Args:
        given: its name, or a short one such as ``bf16``; or torch's type.

    Raises:
        InputError: a model cannot be loaded in that type.
    """
    name = full_name(given)
    if name not in (AUTO, *DTYPES):
        raise InputError(f"dtype {str(given)!r} is not one of {', '.join((*DTYPES, AUTO))}")
    return name


def full_name(dtype: object) -> str:
    """The name of a type of numbers as torch has it: ``bfloat16`` for ``bf16``; other names as they are."""
    name = str(dtype).removeprefix("torch.")
    return _SHORT.get(name.lower(), name)
