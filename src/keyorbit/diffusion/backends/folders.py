"""From a model's name to its folder: the shipped tiny model, a local folder, or a Hub id."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from keyorbit.diffusion.paths import check_model
from keyorbit.errors import InputError


def model_folder(model: str, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """The folder of ``"tiny"``, of a path, or of a Hub id, of which only files matching ``wanted`` are fetched.

    Raises:
        InputError: it is none of these, or not to be had from the Hub.
    """
    if model == "tiny":
        return Path(str(files("keyorbit"))) / "assets" / "tiny"
    path = Path(model)
    if path.is_dir():
        return path
    check_model(model)
    try:
        return Path(snapshot_download(model, allow_patterns=list(wanted), ignore_patterns=list(unwanted)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"model {model} is neither a folder here nor to be had from the Hub: {error}") from error
