"""Options that several commands take, and what is read from them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

import typer

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.backends.known_cameras import camera_choices
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.maps import MapKind
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews, load_dataset
from keyorbit.storage.settings import read_toml

T = TypeVar("T")
ModelOption = Annotated[
    str, typer.Option(help="'tiny' (shipped), or a folder or Hub id of Zero123++ or Stable Diffusion.")
]
UnetOption = Annotated[Path | None, typer.Option(help="A .safetensors file with other weights for the model's UNet.")]
CamerasOption = Annotated[
    str | None,
    typer.Option(
        "--cameras-of", help=f"{', '.join(camera_choices())}: a Zero123++'s cameras, if not those its folder tells of."
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")]
DtypeOption = Annotated[str, typer.Option(help="float32, bfloat16 or float16.")]
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


def one_of(option: str, value: str, known: Sequence[str]) -> None:
    """Raises InputError, naming the option, where the value is none of the known ones."""
    if value not in known:
        raise InputError(f"{option} is {' or '.join(known)}, not '{value}'")


def map_kind(value: str | None) -> MapKind | None:
    """``--maps``, checked. Raises InputError where there is no such kind."""
    if value is not None:
        one_of("--maps", value, get_args(MapKind))
    return cast(MapKind | None, value)


def prepare_config(timestep: str | None, warps: int | None, noises: int | None, base: PrepareConfig) -> PrepareConfig:
    """``base`` with what was given. Raises InputError where a number is out of range."""
    several = [] if timestep is None else timestep.split(",")
    if not all(t.strip().isdecimal() and int(t) <= 999 for t in several):
        raise InputError(f"--timestep is 0 to 999, or several with commas between, not {timestep}")
    if (warps or 0) < 0 or (1 if noises is None else noises) < 1:
        raise InputError("--warps is 0 or more, and --noises 1 or more")
    chosen = tuple(int(t) for t in several)
    single = chosen[0] if len(chosen) == 1 else chosen or None
    return changed(base, timestep=single, warps=warps, noises=noises)


def load_all(path: Path) -> list[ObjectViews]:
    """Every object read now, so that a damaged file is found before any work is done."""
    return list(load_dataset(path))


def load_tokens(run: Path) -> Tokens:
    """The tokens of a run's folder, or of a tokens file. Raises InputError as :meth:`Tokens.load`."""
    return Tokens.load(run if run.is_file() else run / "tokens.safetensors")


def run_backend(
    tokens: Tokens, model: str | None, device: str, dtype: str, unet: Path | None, cameras_of: str | None
) -> Backend:
    """The model asked for, else the one that the tokens were found on, and its cameras likewise.

    Raises:
        InputError: it does not load.
    """
    chosen = cameras_of or tokens.info.cameras_of or None
    return load_backend(model or tokens.info.model or "tiny", device, dtype, unet, cameras_of=chosen)
