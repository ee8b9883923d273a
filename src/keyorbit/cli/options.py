"""Options that several commands take, and their checks; no library is loaded for these."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

import typer

from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import CAMERAS, MapKind, check_dtype
from keyorbit.diffusion.paths import check_model, check_unet
from keyorbit.errors import InputError, one_of
from keyorbit.storage.content import toml_of
from keyorbit.storage.settings import read_toml

T = TypeVar("T")
ModelOption = Annotated[
    str, typer.Option(help="'tiny' (shipped), or a folder or Hub id of Zero123++ or Stable Diffusion.")
]
UnetOption = Annotated[Path | None, typer.Option(help="A .safetensors file with other weights for the model's UNet.")]
CamerasOption = Annotated[
    str | None,
    typer.Option(
        "--cameras-of", help=f"{', '.join(CAMERAS)}: a Zero123++'s cameras, if not those its folder tells of."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs: cuda, mps or cpu; auto: the first there is.")]
DtypeOption = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16 or float16; auto: on a GPU half precision, if the maps stay those of float32."
    ),
]
DeterministicOption = Annotated[
    bool, typer.Option("--deterministic", help="On a GPU: the same command gives the same bytes, and takes longer.")
]
MapsOption = Annotated[
    str | None,
    typer.Option(
        help="logits, attention (softmax with the text), or stablekeypoints (softmax among the tokens, enlarged)."
    ),
]
LayersOption = Annotated[
    str | None, typer.Option(help="Pattern on the cross-attention layers' names; default the model's.")
]
TimestepOption = Annotated[
    str | None,
    typer.Option(help="How much noise the UNet sees, 0 to 999, or several such as 100,300; default the model's."),
]
WarpsOption = Annotated[
    int | None, typer.Option(help="Warped versions of every object; default 0 by constellation, else 2.")
]
NoisesOption = Annotated[
    int | None, typer.Option(help="Draws of noise of every version; default 3 by constellation without warps, else 1.")
]
BatchOption = Annotated[
    int | None,
    typer.Option(help="Objects that go through the model together; default 1 on the CPU, else 8."),
]
CompileOption = Annotated[
    bool,
    typer.Option("--compile", help="Generate views with a compiled UNet: minutes at first, then faster; kept on disk."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier call of this command wrote there; no other files.")
]
RunArgument = Annotated[Path, typer.Argument(help="The folder that 'keyorbit discover' wrote.")]


def changed(config: T, **given: Any) -> T:
    """The dataclass with what was given; None stands for an option that was not."""
    return replace(config, **{name: value for name, value in given.items() if value is not None})  # type: ignore[type-var]


def base_settings(kind: type[T], config: Path | None, kept: Path, resume: bool) -> T:
    """The settings that options change: those of ``--config``, of a run that goes on its own, else the defaults.

    Raises:
        InputError: the file cannot be read, or holds what ``kind`` has not.
    """
    if config is None and resume and kept.is_file():
        config = kept
    return kind() if config is None else read_toml(config, kind)


def check_settings(config: Path | None) -> None:
    """Raise InputError where a file of settings is given that cannot be read; its values are checked later."""
    if config is not None:
        toml_of(config)


def check_maps(value: str | None) -> MapKind | None:
    """``--maps``. Raises InputError where there is no such kind."""
    if value is not None:
        one_of("--maps", value, get_args(MapKind))
    return cast(MapKind | None, value)


def check_versions(timestep: str | None, warps: int | None, noises: int | None) -> int | tuple[int, ...] | None:
    """``--timestep`` as one number or several.

    Raises:
        InputError: it, ``--warps`` or ``--noises`` is out of range.
    """
    several = [] if timestep is None else timestep.split(",")
    if not all(t.strip().isdecimal() and int(t) <= 999 for t in several):
        raise InputError(f"--timestep is 0 to 999, or several with commas between, not {timestep}")
    if (warps or 0) < 0 or (1 if noises is None else noises) < 1:
        raise InputError("--warps is 0 or more, and --noises 1 or more")
    chosen = tuple(int(t) for t in several)
    return chosen[0] if len(chosen) == 1 else chosen or None


def check_model_options(
    model: str | None = None, unet: Path | None = None, cameras_of: str | None = None, dtype: str = AUTO
) -> None:
    """Whether these can name a model, a file of weights, cameras and a type of numbers.

    Raises:
        InputError: one of them cannot.
    """
    check_dtype(dtype)
    if model is not None:
        check_model(model)
    if unet is not None:
        check_unet(unet)
    if cameras_of is not None and cameras_of not in CAMERAS:
        from keyorbit.diffusion.backends.known_cameras import check_choice  # knows what is wrong with it

        check_choice(cameras_of)


def at_least(least: int, **given: float | int | None) -> None:
    """Raise InputError, naming the option, for a number below the least one; None stands for an option not given."""
    for name, value in given.items():
        if value is not None and not value >= least:
            raise InputError(f"--{name.replace('_', '-')} must be {least} or more, not {value:g}")
