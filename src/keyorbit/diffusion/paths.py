"""Models and tokens by their paths: whether they are there, before torch is loaded to read them."""

from collections.abc import Callable
from pathlib import Path

from keyorbit.diffusion.choices import ARCHITECTURE_NAMES
from keyorbit.errors import InputError

# The Hub's own limit on owner/name.
_LONGEST_ID = 192


def check_model(model: str, hint: str = "") -> None:
    """Whether a name can be a model: ``"tiny"``, a folder that is there, or what looks like a Hub id.

    Raises:
        InputError: it is none of these; ``hint`` is the sentence then.
    """
    path = Path(model)
    if model == "tiny" or _is(path.is_dir):
        return
    if _is(path.exists) or len(model) > _LONGEST_ID or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise InputError(hint or f"no model folder at {model}; give 'tiny', a folder, or a Hub id such as owner/name")


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
    if file.suffix != ".safetensors":
        raise InputError(
            f"{file} is not a .safetensors file, and pickles are never opened; convert it with "
            "safetensors.torch.save_file(torch.load(file, weights_only=True), new_file)"
        )


def check_tokens(path: Path) -> None:
    """Raise InputError where there is no file of tokens."""
    if not _is(path.is_file):
        raise InputError(f"no tokens at {path}; make them with 'keyorbit discover'")


def _is(test: Callable[[], bool]) -> bool:
    """Whether a path is such a thing: no file has a name that the system does not allow."""
    try:
        return test()
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether anything is there."""
    return _is(path.exists)


def tokens_file(run: Path) -> Path:
    """The file of tokens in a run's folder, or the one that ``run`` is itself.

    Raises:
        InputError: there is none.
    """
    path = run if run.is_file() else run / "tokens.safetensors"
    check_tokens(path)
    return path
