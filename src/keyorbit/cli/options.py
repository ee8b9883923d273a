"""Options that several commands take, and their checks; no library is loaded for these."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin, get_type_hints

import typer
from typer.models import ParameterInfo

from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import RIGS, MapKind, Timesteps, ViewChoice, check_dtype
from keyorbit.diffusion.paths import check_model, check_unet
from keyorbit.diffusion.rig_choice import check_rig
from keyorbit.discovery.weights import Strategy, Subjects
from keyorbit.errors import InputError, one_of
from keyorbit.objects.background import Background
from keyorbit.objects.paths import check_removal, mask_files, mesh_paths, without_meshes
from keyorbit.objects.sources import ObjectSource, object_sources
from keyorbit.storage.settings import read_toml
from keyorbit.synthetic.choices import UPS
from keyorbit.values import Amount, Count, check_value, short

T = TypeVar("T")
ModelOption = Annotated[
    str, typer.Option(help="'tiny' (shipped), or a folder or Hub id of Zero123++ or Stable Diffusion.")
]
UnetOption = Annotated[Path | None, typer.Option(help="A .safetensors file with other weights for the model's UNet.")]
RigOption = Annotated[
    str | None,
    typer.Option(
        "--rig",
        "--cameras-of",
        help=f"{', '.join(RIGS)}, or a JSON file: a Zero123++'s cameras, if not those its folder tells of.",
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(help="Rows x columns of a Zero123++'s views, such as 2x3; default what its folder tells, or 3x2."),
]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs: cuda, mps or cpu; auto: the first there is.")]
DtypeOption = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16 or float16 (bf16, fp16); auto: on a GPU half precision, if maps stay those of float32."
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
RecentreOption = Annotated[
    bool,
    typer.Option(
        "--recentre/--no-recentre", help="Show the model a small or off-centre object in the picture's middle."
    ),
]
BackgroundOption = Annotated[
    str | None,
    typer.Option(
        help="auto (default): cut the object out of a photograph; remove: of all pictures without alpha; keep: never."
    ),
    Background,
]
MaskOption = Annotated[
    Path | None,
    typer.Option(help="A picture's mask, white on the object, to cut it out by; of several, a folder of their masks."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier call of this command wrote there; no other files.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at the first object that cannot be used, instead of leaving it out.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Use the tokens knowingly on other weights than they were discovered on.")
]
UpOption = Annotated[
    str,
    typer.Option(help="Meshes' upward axis: x, y, z, -x, -y, -z; auto: what the files tell, or their shapes."),
]
DataArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Dataset folders, pictures or folders of them, shards, addresses, patterns, or - for a list on stdin.",
        show_default=False,
    ),
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
    model: str | None = None,
    unet: Path | None = None,
    rig: str | None = None,
    layout: str | None = None,
    dtype: str = AUTO,
) -> ViewChoice:
    """Whether these can name a model, a file of weights, cameras, a layout and a type of numbers; the choice of views.

    Raises:
        InputError: one of them cannot.
    """
    check_dtype(dtype)
    if model is not None:
        check_model(model)
    if unet is not None:
        check_unet(unet)
    if rig is not None:
        check_rig(rig)
    return ViewChoice(rig, layout)


def checked_masks(paths: Sequence[Path], background: str | None, mask: Path | None) -> dict[Path, Path]:
    """The masks of the objects at these paths, by ``--mask``, and whether ``--background`` can be done.

    Raises:
        InputError: there are no objects there, or as :func:`keyorbit.objects.paths.mask_files`.
    """
    return masks_of(object_sources(paths), background, mask)


def masks_of(sources: Sequence[ObjectSource], background: str | None, mask: Path | None) -> dict[Path, Path]:
    """The same of objects that were found already.

    Raises:
        InputError: one of them lies in a shard or at an address, or as :func:`keyorbit.objects.paths.mask_files`.
    """
    check_removal(background)
    if mask is None:
        return {}
    if away := next((source for source in sources if source.elsewhere), None):
        raise InputError(f"--mask is for pictures in files on this disk, and {away.where} is none: leave one out")
    return mask_files(mask, [source.path for source in sources])


def given_meshes(paths: Sequence[Path], mask: Path | None, up: str) -> tuple[list[Path], list[Path]]:
    """The paths of object folders and pictures, and those of meshes; and whether ``--up`` is an axis.

    Raises:
        InputError: it is none, a pattern or a mesh is not there, or there is a mask and nothing but meshes.
    """
    one_of("--up", up, UPS)
    others, meshes = without_meshes(paths)
    mesh_paths(meshes)
    if mask is not None and meshes and not others:
        raise InputError("--mask is for pictures: meshes are rendered without a background")
    return others, meshes


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
