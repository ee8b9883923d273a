"""Which weights a model has, as a short text, by which tokens, caches and runs know their model again.

The same weights are the same model. Counted is what is loaded: the tensors of the UNet, the VAE and the encoders, by
their names, shapes and some of their numbers. Not counted are files that are never loaded (a safety checker, a LoRA, a
ControlNet, EMA weights, other variants), the names of files and how tensors are spread over them, tensors that a part's
class does not have, the names that older libraries gave to tensors, and configurations.

Numbers are rounded to float16, so that a copy of the ``fp16`` variant has the fingerprint of the float32 weights that
it was made from. A bfloat16 copy has another one: it has lost bits that float16 keeps, and no coarser rounding helps,
since of many thousands of numbers some always lie at its edges, where the two copies fall to different sides.

Of a tensor the first, the middle and the last row count, with up to 64 numbers each, the first and the last among them.
Training changes nearly all numbers, and so the fingerprint; a change of single numbers may go unseen.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ModelMixin, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from keyorbit.diffusion.backends.original_names import state_dict_of
from keyorbit.diffusion.backends.stored import check_config
from keyorbit.diffusion.backends.weight_files import file_names, weight_files
from keyorbit.errors import InputError, first_line, memory_shortage
from keyorbit.storage.content import json_of

_ROW_NUMBERS = 64
# The parts that have weights; the last is Zero123++'s alone.
_PARTS: dict[str, Any] = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "vision_encoder": CLIPVisionModelWithProjection,
}
# As earlier versions of diffusers named the VAE's attention, and what transformers put before an encoder's names.
_RENAMED = (
    (r"\.query\.(weight|bias)$", r".to_q.\1"),
    (r"\.key\.(weight|bias)$", r".to_k.\1"),
    (r"\.value\.(weight|bias)$", r".to_v.\1"),
    (r"\.proj_attn\.(weight|bias)$", r".to_out.0.\1"),
)
_PREFIXES = {"text_encoder": "text_model.", "vision_encoder": "vision_model."}


def fingerprint(folder: Path, unet: Path | None = None) -> str:
    """The fingerprint of a model's folder, without loading it: a small part of each tensor is read.

    Args:
        folder: of the model.
        unet: a file whose weights stand in for the folder's own UNet. Default None: the folder's.

    Raises:
        InputError: a part's weights or configuration are missing or damaged.
    """
    digest = hashlib.sha256()
    for part in _parts_of(folder):
        place, kind = folder / part, _PARTS[part]
        other = unet if part == "unet" else None
        files = [other] if other else [place / name for name in weight_files(file_names(place)).names]
        if not files:
            raise InputError(f"{place} holds no weights as safetensors")
        module = _empty(place, part, kind, other)
        names = {_name(key, part) for key, x in module.state_dict().items() if x.is_floating_point()}
        try:
            with ExitStack() as stack:
                opened = [stack.enter_context(safe_open(file, "pt")) for file in files]
                tensors: dict[str, Any] = {key: file.get_slice(key) for file in opened for key in file.keys()}  # noqa: SIM118
                if other and not names <= {_name(key, part) for key in tensors}:  # those of another library
                    tensors = dict(state_dict_of(opened[0], part, module.config))
                _feed(digest, part, names, tensors.items())
        except (SafetensorError, OSError) as error:
            raise InputError(f"the weights of the {part} in {place} cannot be read: {error}") from error
    return digest.hexdigest()[:16]


def fingerprint_of(parts: Mapping[str, Mapping[str, Tensor]]) -> str:
    """The same of parts in memory, by their names in a model's folder, as their ``state_dict()`` holds them.

    They are in float32 or float16; a model that was loaded in bfloat16 has lost what it would need.
    """
    digest = hashlib.sha256()
    for part in _PARTS:
        if part in parts:
            names = {_name(key, part) for key in parts[part]}
            _feed(digest, part, names, parts[part].items())
    return digest.hexdigest()[:16]


def older_fingerprint(folder: Path, unet: Path | None = None) -> str:
    """The fingerprint that keyorbit 0.1 gave: of files, with their names, sizes and some of their bytes.

    Tokens, caches and runs of that version hold it. It can go when those are no longer to be read.
    """
    digest = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("*/*.safetensors"))}
    if unet is not None:
        files = {name: path for name, path in files.items() if not name.startswith("unet/")} | {"unet": unet}
    for name, path in files.items():
        size = path.stat().st_size
        digest.update(f"{name} {size}\n".encode())
        with path.open("rb") as file:
            for start in (0, size // 2, max(0, size - 2**20)):
                file.seek(start)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]


def _parts_of(folder: Path) -> Iterator[str]:
    index = json_of(folder / "model_index.json", infinite=True)
    several = isinstance(index, dict) and "ramping_coefficients" in index
    return (part for part in _PARTS if part != "vision_encoder" or several)


def _empty(folder: Path, part: str, kind: Any, weights: Path | None) -> Any:
    """The part by its configuration, without weights."""
    check_config(folder, kind, weights)
    try:
        with torch.device("meta"):  # no memory is taken
            if issubclass(kind, ModelMixin):
                return kind.from_config(kind.load_config(folder))
            return kind(kind.config_class.from_pretrained(folder))
    except Exception as error:  # the libraries raise whatever they meet
        if memory_shortage(error):
            raise
        raise InputError(f"the {part} in {folder} cannot be loaded: {first_line(error)}") from error


def _name(key: str, part: str) -> str:
    """A tensor's name as libraries of today and of earlier times agree on it."""
    for before, after in _RENAMED:
        key = re.sub(before, after, key)
    return key.removeprefix(_PREFIXES.get(part, ""))


def _feed(digest: Any, part: str, names: set[str], tensors: Iterable[tuple[str, Any]]) -> None:
    """Add a part's tensors, whole ones or slices of files, to a hash; those of other names are left out.

    Raises:
        InputError: one is missing: other weights would have the same fingerprint.
    """
    known = {name: stored for key, stored in tensors if (name := _name(key, part)) in names}
    if missing := sorted(names - known.keys()):
        raise InputError(f"the weights of the {part} lack {len(missing)} of its tensors, such as {missing[0]}")
    for name, stored in sorted(known.items()):
        shape = list(stored.shape if isinstance(stored, Tensor) else stored.get_shape())
        digest.update(f"{part} {name} {shape}\n".encode())
        if 0 not in shape:
            for row in _rows(stored, shape):
                digest.update(row.half().cpu().numpy().tobytes())


def _rows(stored: Any, shape: Sequence[int]) -> Iterator[Tensor]:
    """Some numbers of the first, the middle and the last row; of a vector, which is one row, and of a single number."""
    places = sorted({0, shape[0] // 2, shape[0] - 1}) if len(shape) > 1 else [slice(None) if shape else ...]
    for place in places:
        row: Tensor = stored[place].flatten()
        last = len(row) - 1
        count = min(_ROW_NUMBERS, last + 1)
        yield row[[i * last // max(1, count - 1) for i in range(count)]]
