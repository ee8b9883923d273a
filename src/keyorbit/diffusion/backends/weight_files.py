"""Which files of a part's folder hold the weights that are loaded."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

# As diffusers and transformers name them; by the suffix, for pickles have other names.
_STEMS = {".safetensors": ("diffusion_pytorch_model", "model"), ".bin": ("diffusion_pytorch_model", "pytorch_model")}
# Half precision is taken where there is nothing else.
_VARIANTS = (None, "fp16", "bf16")
_PICKLES = (".bin", ".ckpt", ".pt", ".pth")
_GIT_LFS = b"version https://git-lfs"


@dataclass(frozen=True)
class WeightFiles:
    """The weights of one part: the files' names, and the libraries' word for their variant, as in ``fp16``."""

    names: tuple[str, ...] = ()
    variant: str | None = None


def weight_files(names: Collection[str], suffix: str = ".safetensors") -> WeightFiles:
    """Of all files in a part's folder, those that are loaded: whole or in shards, before half precision.

    Copies as pickles, of the other variant, of another library and ``non_ema`` weights are left out. With the suffix
    ``.bin``: the same of the pickles.
    """
    for variant in _VARIANTS:
        middle = f".{variant}" if variant else ""
        for stem in _STEMS[suffix]:
            whole, shards = f"{stem}{middle}{suffix}", _shards(names, stem, middle, suffix)
            found = [shards, [whole] if whole in names else []]
            for files in found[::-1] if stem == "model" else found:  # where there are both, the library's choice
                if files:
                    return WeightFiles(tuple(files), variant)
    return WeightFiles()


def _shards(names: Collection[str], stem: str, middle: str, suffix: str) -> list[str]:
    """All shards, or none where one or their table of contents is lacking."""
    index = f"{stem}{suffix}.index{middle}.json"
    number, variant, end = r"-\d{5}-of-(\d{5})", re.escape(middle), re.escape(suffix)
    # Older versions put the variant last.
    pattern = re.compile(rf"{stem}(?:{variant}{number}|{number}{variant}){end}")
    found = {name: match for name in names if (match := pattern.fullmatch(name))}
    count = {int(match[1] or match[2]) for match in found.values()}
    return sorted(found) if index in names and count == {len(found)} else []


def pickles(names: Collection[str]) -> list[str]:
    """Those that are pickles, by their names."""
    return sorted(name for name in names if name.endswith(_PICKLES))


def as_safetensors(name: str) -> str:
    """The name of a file of weights, or of its table of contents, once it is no pickle any more."""
    whole = name.removeprefix("pytorch_") if name.startswith("pytorch_model") else name
    return whole.replace(".bin", ".safetensors")


def file_names(folder: Path) -> list[str]:
    """Of the files in a folder; not of links that lead nowhere, as a cache has them whose files were removed."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def pointer(file: Path) -> str:
    """What to do where a repository was cloned without its large files; empty for another file."""
    with file.open("rb") as stored:
        begins = stored.read(len(_GIT_LFS))
    return "it only names a file of Git LFS: fetch that with 'git lfs pull' in its folder" if begins == _GIT_LFS else ""
