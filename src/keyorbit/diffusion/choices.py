"""What can be chosen of a model and of how it is read, by name. It imports no library: the command line reads it."""

import re
from dataclasses import dataclass
from reprlib import repr as short
from typing import Annotated, Literal, get_args

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
# Of Zero123++; and with the rigs of geometry/rigs.py.
VERSIONS = ("v1.1", "v1.2")
TILED_RIGS = ("zero123plus-v1.1", "zero123plus-v1.2", "instantmesh")
RIGS = (*VERSIONS, *TILED_RIGS, "syncdreamer", "wonder3d", "era3d", "mvdream", "mv-adapter")
# Rows or columns of views: more than any model has.
MOST_TILES = 64
# Kinds of objects whose tokens for the tiny model ship: those that it was trained on.
ShippedKind = Literal["chair", "car", "aeroplane", "animal"]
SHIPPED_KINDS = get_args(ShippedKind)
# What inspect writes into its JSON.
INSPECT_FORMAT = "keyorbit-inspect-1"
# Models that can be inspected without their files.
ARCHITECTURE_NAMES = ("zero123plus-v1.2", "zero123plus-v1.1", "stable-diffusion-1.5", "stable-diffusion-2.1")


def layout_numbers(text: str, name: str = "layout") -> tuple[int, int]:
    """Rows and columns in a text such as "2x3".

    Raises:
        InputError: it holds something else, fewer than two views, or more than 64 rows or columns.
    """
    found = re.fullmatch(r"([0-9]{1,2}) *[x×X] *([0-9]{1,2})", str(text).strip(), re.ASCII)
    rows, cols = (int(found[1]), int(found[2])) if found else (0, 0)
    if rows * cols < 2 or max(rows, cols) > MOST_TILES:
        raise InputError(
            f"{name} cannot be {short(text)}; it must be rows x columns of views, such as 2x3: two views or more, and "
            f"at most {MOST_TILES} rows or columns"
        )
    return rows, cols


@dataclass(frozen=True)
class ViewChoice:
    """How a model's views lie and where their cameras are, where somebody says so; else the model's folder tells.

    Attributes:
        rig: one of :data:`RIGS`, or a JSON file of cameras. Default None: nobody says.
        layout: rows x columns, such as ``2x3``. Default None: nobody says.

    Raises:
        InputError: the layout is none.
    """

    rig: str | None = None
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.layout is not None:
            layout_numbers(self.layout, "--layout (layout=)")

    def over(self, rig: str, layout: str) -> "ViewChoice":
        """This choice, and what was chosen before where it says nothing; empty texts are no choice."""
        return ViewChoice(self.rig or rig or None, self.layout or layout or None)


FROM_FOLDER = ViewChoice()


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
