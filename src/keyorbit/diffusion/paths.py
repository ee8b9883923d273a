"""Models and tokens by their paths: whether they are there, before torch is loaded to read them."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from keyorbit.diffusion.choices import ARCHITECTURE_NAMES, ShippedKind
from keyorbit.diffusion.hub_names import check_hub_id, is_hub_id
from keyorbit.errors import InputError

_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


def check_model(model: str, hint: str = "") -> None:
    """Whether a name can be a model: ``"tiny"``, a folder or a checkpoint that is there, or what looks like a Hub id.

    Raises:
        InputError: it is none of these; ``hint`` is the sentence then.
    """
    path = Path(model)
    if model == "tiny" or _is(path.is_dir):
        return
    if _is(path.exists):
        if path.suffix.lower() == ".safetensors":
            return
        if path.suffix.lower() in _PICKLES:
            raise InputError(f"{model} is a pickle, and pickles are never opened: {_convert(path)}")
        raise InputError(hint or f"{model} is a file; give the model's folder, or a checkpoint in a .safetensors file")
    if not is_hub_id(model):
        if path.suffix.lower() in (".safetensors", *_PICKLES):
            raise InputError(hint or f"there is no file of weights at {model}")
        where = " (a shell puts your home folder in place of ~ only where a word begins)" if model[0] == "~" else ""
        raise InputError(
            hint or f"no model folder at {model}{where}; give 'tiny', a folder, or a Hub id such as owner/name"
        )
    check_hub_id(model, "model")


def check_architecture(model: str) -> None:
    """The same for a model that is inspected, which may also be one of the architectures known by name.

    Raises:
        InputError: there is no such model.
    """
    if model not in ARCHITECTURE_NAMES:
        names = ", ".join(("tiny", *ARCHITECTURE_NAMES))
        check_model(model, f"no model at {model}; give one of {names}, a folder, or a Hub id such as owner/name")


def check_unet(file: Path) -> None:
    """Whether a file can hold a UNet's weights.

    Raises:
        InputError: it is missing, or no safetensors file.
    """
    if not _is(file.is_file):
        raise InputError(f"there is no UNet state dict at {file}")
    if file.suffix.lower() != ".safetensors":
        raise InputError(f"{file} is not a .safetensors file, and pickles are never opened; {_convert(file)}")


def check_tokens(path: Path) -> None:
    """Raise InputError where there is no file of tokens."""
    if not _is(path.is_file):
        raise InputError(f"no tokens at {path}; make them with 'keyorbit discover'")


def _convert(file: Path) -> str:
    return f"convert it to safetensors with 'keyorbit convert {file} {file.with_suffix('.safetensors')}'"


def _is(test: Callable[[], bool]) -> bool:
    """Whether a path is such a thing: no file has a name that the system does not allow."""
    try:
        return test()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether anything is there."""
    return _is(path.exists)


def shipped_tokens(kind: ShippedKind = "chair") -> Path:
    """The tokens of a kind of object for the tiny model, which ship with the package. Default: of chairs."""
    name = "tokens" if kind == "chair" else f"tokens_{kind}"
    return _package() / "assets" / "examples" / f"{name}.safetensors"


def as_told(path: Path) -> str:
    """The path as files keep it: as it was given, or of what ships, without where the package is installed."""
    try:
        return path.relative_to(_package().parent).as_posix()
    except ValueError:
        return str(path)


def _package() -> Path:
    return Path(str(files("keyorbit")))


def tokens_file(run: Path) -> Path:
    """The file of tokens in a run's folder, or the one that ``run`` is itself.

    Raises:
        InputError: there is none.
    """
    path = run if run.is_file() else run / "tokens.safetensors"
    check_tokens(path)
    return path
