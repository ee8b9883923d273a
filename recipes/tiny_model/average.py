"""Between two models: ``python -m tiny_model.average OLD NEW OUT --unet 0.6 --text 0.6 --vision 0.3``.

A model that was trained on with other objects knows these and has forgotten some of its old ones. The weighted mean of
its weights and of those that it began from keeps most of both, and may be better than either (Wortsman et al. 2022,
"Robust fine-tuning of zero-shot models"). How much each part takes of the new weights is chosen by the judge's figures.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.storage.outputs import MARKER, check_output, replaced_folder
from keyorbit.training.choices import MODEL
from keyorbit.values import Share, check_value
from tiny_model.command import run

_WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "vision_encoder": "vision_encoder/model.safetensors",
}


def average(old: Path, new: Path, out: Path, shares: Mapping[str, float], overwrite: bool = False) -> None:
    """Write the weighted mean of two models; the VAE, whose latents both know, and all settings are the old one's.

    Args:
        old, new: model folders of the same architecture.
        out: the folder that is written, whole or not at all.
        shares: of the new weights, 0…1, of ``unet``, ``text_encoder`` and ``vision_encoder``; default 0.
        overwrite: whether a model that is there is replaced.

    Raises:
        InputError: a share is not in its range, a folder is no whole model, the models differ in the names or shapes of
            their weights, or there is something at ``out``.
    """
    check_output(out, MODEL, overwrite)
    mixed = {}
    for name, share in shares.items():
        check_value(name, share, Share)
        first, second = _read(old / _WEIGHTS[name]), _read(new / _WEIGHTS[name])
        if {key: value.shape for key, value in first.items()} != {key: value.shape for key, value in second.items()}:
            raise InputError(f"{old} and {new} differ in the architecture of their {name}: their weights have no mean")
        mixed[name] = {key: _mean(value, second[key], share) for key, value in first.items()}
    with replaced_folder(out, MODEL, overwrite) as partial:
        # Neither the old model's card nor its marker is true of the mean.
        shutil.copytree(old, partial, ignore=shutil.ignore_patterns("README.md", MARKER), dirs_exist_ok=True)
        for name, tensors in mixed.items():
            save_file(tensors, partial / _WEIGHTS[name], {"format": "pt"})


def _read(path: Path) -> dict[str, Tensor]:
    try:
        found: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as weights ({error}): give the folders of two tiny models") from error
    return found


def _mean(first: Tensor, second: Tensor, share: float) -> Tensor:
    """In full precision; what counts, such as positions, stays."""
    return first.float().lerp(second.float(), share).to(first.dtype) if first.is_floating_point() else first


def main(
    old: Annotated[Path, typer.Argument(help="A model folder.")],
    new: Annotated[Path, typer.Argument(help="One that was trained on from it.")],
    out: Annotated[Path, typer.Argument(help="Where the mean goes.")],
    unet: Annotated[float, typer.Option(help="Share of NEW in the UNet, 0 to 1.")] = 0.5,
    text: Annotated[float, typer.Option(help="In the text encoder.")] = 0.5,
    vision: Annotated[float, typer.Option(help="In the vision encoder.")] = 0.5,
    overwrite: bool = False,
) -> None:
    """Write the mean of two models' weights as a model."""
    average(old, new, out, {"unet": unet, "text_encoder": text, "vision_encoder": vision}, overwrite)
    sys.stdout.write(f"the model is in {out}\n")


if __name__ == "__main__":
    run("average", main)
