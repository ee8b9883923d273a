"""Options that several commands take, and their checks; no library is loaded for these."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from reprlib import repr as short
from typing import Annotated, Any, Literal, TypeVar, get_origin, get_type_hints

import typer
from typer.models import ParameterInfo

from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import CAMERAS, MapKind, Timesteps, check_dtype
from keyorbit.diffusion.paths import check_model, check_unet
from keyorbit.discovery.weights import Strategy, Subjects
from keyorbit.errors import InputError
from keyorbit.storage.settings import read_toml
from keyorbit.values import Amount, Count, check_value

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
    MapKind,
]
LayersOption = Annotated[
    str | None, typer.Option(help="Pattern on the cross-attention layers' names; default the model's.")
]
TimestepOption = Annotated[
    str | None,
    typer.Option(help="How much noise the UNet sees, 0 to 999, or several such as 100,300; default the model's."),
]
WarpsOption = Annotated[
    int | None, typer.Option(help="Warped versions of every object; default 0 by constellation, else 2."), Amount
]
NoisesOption = Annotated[
    int | None,
    typer.Option(help="Draws of noise of every version; default 3 by constellation without warps, else 1."),
    Count,
]
SubjectsOption = Annotated[
    int | None, typer.Option(help="Single views: things of the kind in a picture, a spot each; default 1."), Subjects
]
StrategyOption = Annotated[
    str | None,
    typer.Option(help="Single views: tokens ranked by gaussian (default), entropy, or consistent, the first ones."),
    Strategy,
]
BatchOption = Annotated[
    int | None,
    typer.Option(help="Objects that go through the model together; default 1 on the CPU, else 8."),
    Count,
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
    if config is None and resume and kept.exists():
        config = kept
    return kind() if config is None else read_toml(config, kind)


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


def whole_numbers(option: str, text: str, between: str = ",") -> tuple[int, ...]:
    """The whole numbers in an option's text, such as "100,300".

    Raises:
        InputError: it holds something else; the message names the option.
    """
    try:
        return tuple(int(part) for part in text.split(between))
    except ValueError as error:  # also: thousands of digits
        words = f"{option} cannot be {short(text)}; it must be whole numbers"
        raise InputError(f"{words} with {between!r} between them") from error


def timesteps_of(text: str | None) -> Timesteps | None:
    """``--timestep`` as one number or several.

    Raises:
        InputError: it is none, or out of range.
    """
    if text is None:
        return None
    numbers = whole_numbers("--timestep", text)
    chosen = numbers[0] if len(numbers) == 1 else numbers
    check_value("--timestep", chosen, Timesteps)
    return chosen


def checks_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command, whose options are checked first: against the range that stands in an option's type.

    It stands behind typer's own words: ``Annotated[int | None, typer.Option(help="..."), Count]``.

    Raises:
        InputError: an option is not what its range allows; the message names it.
    """

    @wraps(command)
    def run(**given: Any) -> None:
        for name, (option, allowed) in ranges_of(command).items():
            if given.get(name) is not None:
                check_value(option, given[name], allowed)
        command(**given)

    return run


def ranges_of(command: Callable[..., None]) -> dict[str, tuple[str, Any]]:
    """What each option of a command that has a range is called on the command line, and the range."""
    found = {}
    for name, hint in get_type_hints(command, include_extras=True).items():
        notes = getattr(hint, "__metadata__", ())
        typers = [note for note in notes if isinstance(note, ParameterInfo)]
        # Beside a type, typer keeps an option's first name where its default would be.
        words = [str(word) for note in typers for word in (note.default, *(note.param_decls or ()))]
        for allowed in notes:
            if get_origin(allowed) in (Annotated, Literal):
                option = next((word for word in words if word.startswith("--")), f"--{name.replace('_', '-')}")
                found[name] = option, allowed
    return found
