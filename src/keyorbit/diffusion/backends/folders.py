"""From a model's name to its folder: the shipped tiny model, a local folder, or a Hub id."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from keyorbit.diffusion.backends.weight_files import pickles, weight_files
from keyorbit.diffusion.hub_access import fetched
from keyorbit.diffusion.paths import check_model
from keyorbit.errors import InputError
from keyorbit.storage.content import json_of

INDEX = "model_index.json"
_TEXT = (".json", ".txt")


def model_folder(model: str, parts: Mapping[str, bool] | None = None, main_file: str = INDEX) -> Path:
    """The folder of ``"tiny"``, of a path, or of a Hub id, of which no more is fetched than is wanted.

    Args:
        model: its name.
        parts: the folders of the parts that are wanted, ``""`` for the model's own; true: with their weights. Default
            None: the configurations of all.
        main_file: one that such a model has.

    Raises:
        InputError: it is none of these, or not to be had from the Hub.
    """
    if model == "tiny":
        return Path(str(files("keyorbit"))) / "assets" / "tiny"
    path = Path(model)
    if path.is_dir():
        return path
    check_model(model)
    if path.exists():
        raise InputError(f"{model} is a checkpoint in one file; give a model's folder, or a Hub id such as owner/name")
    return fetched("model", model, main_file, partial(model_files, model, parts, main_file, (".safetensors",)))


def model_files(
    model: str, parts: Mapping[str, bool] | None, main_file: str, suffixes: Sequence[str], names: Sequence[str]
) -> list[str]:
    """Of a repository's files, those that are wanted: of each part the weights of the first suffix that it has.

    Args:
        model: the repository's name.
        parts: as in :func:`model_folder`.
        main_file: as in :func:`model_folder`.
        suffixes: of weights, as :func:`weight_files` has them.
        names: of all files.

    Raises:
        InputError: the main file, a part or its weights are lacking.
    """
    if main_file not in names:
        raise InputError(f"{model} is no model that can be used here: it has no {main_file}")
    texts = [name for name in names if name.endswith(_TEXT) and name.count("/") <= 1]
    if parts is None:
        return [name for name in texts if name.endswith(".json")]
    wanted = [main_file]
    for part, with_weights in parts.items():
        here = [PurePosixPath(name).name for name in names if _folder(name) == part]
        found = (weight_files(here, suffix).names for suffix in suffixes if with_weights)
        weights = next(filter(None, found), ())
        if not here:
            raise InputError(f"the model {model} lacks its {part}")
        if with_weights and not weights:
            only = _only_pickles(model, pickles(here)) if ".bin" not in suffixes else ""
            raise InputError(f"the model {model} holds no weights of its {part or 'own'}{only}")
        wanted += [name for name in texts if _folder(name) == part]
        wanted += [f"{part}/{name}".lstrip("/") for name in weights]
    return list(dict.fromkeys(wanted))


def _only_pickles(model: str, names: Sequence[str]) -> str:
    """What to do with weights that are pickles, as the rest of a sentence."""
    convert = f"convert it with 'keyorbit convert {model} FOLDER'"
    return f" but the pickle {names[0]}, which is never opened here: {convert}" if names else ""


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def index_of(folder: Path) -> dict[str, Any]:
    """What ``model_index.json`` says.

    Raises:
        InputError: there is none, or it cannot be read; where the folder lies within a model, or a model within it,
            the message says so.
    """
    path = folder / INDEX
    if not path.exists():
        raise InputError(f"{folder} is no model folder: it has no {INDEX}{_near(folder)}")
    index = json_of(path, infinite=True)
    if not isinstance(index, dict):
        raise InputError(f"{path} does not describe a model: it must be a JSON object")
    return index


def _near(folder: Path) -> str:
    """Where the model is that was meant, as the rest of a sentence."""
    above = folder.absolute().parent
    if (above / INDEX).is_file():
        return f"; it is the {folder.absolute().name} of the model {above}: give that"
    inside = sorted(found.parent for depth in ("*", "*/*") for found in folder.glob(f"{depth}/{INDEX}"))
    if inside:
        others = f", or one of {len(inside) - 1} others in it" if inside[1:] else ""
        return f"; give the model {inside[0]} that lies in it{others}"
    if (folder / "tokens.safetensors").is_file():
        return "; it holds tokens, as a run does, and no model"
    single = sorted(found for found in folder.glob("*.safetensors") if not found.name.startswith("."))
    return f"; give a checkpoint as a file, such as {single[0]}" if single else ""
