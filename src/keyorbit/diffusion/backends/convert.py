"""A model's folder without pickles: what is loaded of it, copied, with weights as safetensors."""

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from keyorbit.diffusion.backends.folders import INDEX, model_files
from keyorbit.diffusion.backends.loading import parts_of
from keyorbit.diffusion.backends.pickles import convert_file, weights_in, write_weights
from keyorbit.diffusion.backends.weight_files import as_safetensors, file_names, pickles, weight_files
from keyorbit.diffusion.hub_access import fetched
from keyorbit.errors import InputError
from keyorbit.storage.content import json_of, stand_in
from keyorbit.storage.files import make_folder, whole_file
from keyorbit.storage.outputs import CONVERTED, replaced_folder

_TEXT = (".json", ".txt")
_CONFIG = "config.json"
# Weights that are copied, before those that are converted.
_SUFFIXES = (".safetensors", ".bin")


def convert(source: str, out: Path, overwrite: bool = False) -> list[str]:
    """Write a model, a ControlNet or a single file of weights anew, with safetensors in place of pickles.

    Args:
        source: a folder in the layout of ``sudo-ai/zero123plus-v1.1`` or of Stable Diffusion, that of a ControlNet, the
            Hub id of either, or a file of weights.
        out: the folder to write; a ``.safetensors`` file for a file.
        overwrite: replace what an earlier call wrote there. Default False. A file is never replaced without it.

    Returns:
        The files of weights that were pickles, below the source.

    Raises:
        InputError: there is no such model, a part of it has no weights, as
            :func:`keyorbit.diffusion.backends.pickles.convert_file`, or ``out`` cannot be written.
    """
    path = Path(source)
    if path.is_file():
        return _converted_file(path, out, overwrite)
    folder = path if path.is_dir() else _fetched(source)
    parts = {"": True} if _is_part(folder) else parts_of(folder)
    converted = []
    with replaced_folder(out, CONVERTED, overwrite) as target:
        if "" not in parts:
            shutil.copyfile(folder / INDEX, target / INDEX)
        for part, with_weights in parts.items():
            found = _converted_part(folder / part, make_folder(target / part), with_weights)
            converted += [str(PurePosixPath(part, name)) for name in found]
    return converted


def _converted_file(path: Path, out: Path, overwrite: bool) -> list[str]:
    if out.suffix != ".safetensors":
        raise InputError(f"{path} is a file of weights, so {out} must be one too, ending in .safetensors")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is there already: replace it (--overwrite), or give another name")
    tensors = weights_in(path)
    make_folder(out.parent)  # not before: what cannot be read leaves none behind
    with whole_file(out) as target:
        write_weights(tensors, target)
    return [path.name]


def _converted_part(folder: Path, target: Path, with_weights: bool) -> list[str]:
    """Copy a part without its pickles, and write these anew; their names."""
    if not folder.is_dir():
        raise InputError(f"the model in {folder.parent} lacks its {folder.name}: there is no folder {folder}")
    names = file_names(folder)
    for name in names:
        if name.endswith(_TEXT) and not _lists_weights(name):
            shutil.copyfile(folder / name, target / name)
    if not with_weights:
        return []
    safe, pickled = weight_files(names), weight_files(names, ".bin")
    if not safe.names and not pickled.names:
        raise InputError(f"{folder} holds no weights, or not all of their shards{_others(folder, names)}")
    for name in safe.names:
        if why := stand_in(folder / name):
            raise InputError(f"{folder / name} cannot be copied: {why}")
        shutil.copyfile(folder / name, target / name)
    for name in () if safe.names else pickled.names:
        convert_file(folder / name, target / as_safetensors(name))
    chosen = safe.names or pickled.names
    for name in names:
        if _lists_weights(name) and len(chosen) > 1:
            _copy_list(folder / name, target, chosen)
    return [] if safe.names else list(pickled.names)


def _others(folder: Path, names: Sequence[str]) -> str:
    """What to do with a pickle whose name the libraries do not know, and which is no shard; empty for none."""
    found = [name for name in pickles(names) if "-of-" not in name]
    known = "pytorch_model.bin" if folder.name.endswith("encoder") else "diffusion_pytorch_model.bin"
    return f": {found[0]} is taken if its name is {known}" if found else ""


def _lists_weights(name: str) -> bool:
    return ".index." in name


def _copy_list(path: Path, target: Path, chosen: Sequence[str]) -> None:
    """The table of contents of these shards, with their new names; another's is left out."""
    content = json_of(path)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not set(shards.values()) <= set(chosen):
        return
    content["weight_map"] = {name: as_safetensors(str(file)) for name, file in shards.items()}
    (target / as_safetensors(path.name)).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _is_part(folder: Path) -> bool:
    """Whether a folder is that of one network, such as a ControlNet's."""
    return not (folder / INDEX).exists() and (folder / _CONFIG).exists()


class _NoIndexError(InputError):
    """The repository is no whole model."""


def _fetched(model: str) -> Path:
    """The folder of a repository, in which nothing is but what is converted."""
    try:
        folder = fetched("model", model, INDEX, partial(_configurations, model))
    except _NoIndexError:
        return fetched("model", model, _CONFIG, partial(_single, model))
    return fetched("model", model, INDEX, partial(model_files, model, parts_of(folder), INDEX, _SUFFIXES))


def _configurations(model: str, names: Sequence[str]) -> list[str]:
    if INDEX not in names:
        raise _NoIndexError(f"it has no {INDEX}")
    return model_files(model, None, INDEX, _SUFFIXES, names)


def _single(model: str, names: Sequence[str]) -> list[str]:
    if _CONFIG not in names:
        raise InputError(f"it is no model that can be used here: it has neither {INDEX} nor {_CONFIG}")
    return model_files(model, {"": True}, _CONFIG, _SUFFIXES, names)
