"""What discovery needs to know of a model whose weights it may not have."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.choices import RIGS
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What a discovery needs to know of a model whose weights it may not have.

    Attributes:
        name: what :func:`keyorbit.load_backend` was called with.
        fingerprint: of its weights; ``older_fingerprint`` gives it as earlier versions did, empty where no files are.
        layers: names of the cross-attention layers that are read.
        layout: how its views are tiled.
        cameras: of the objects' views; None for a model of a single view.
        latent_side: of one view, latent pixels.
        text_rows: embeddings of random words, which tell how large the tokens should be at first.
        cameras_of: whose cameras it was loaded with, where somebody chose them.
        cameras_mark: :func:`file_mark` of these, if they are from a file.
        dtype: type of numbers that it computes in; of a cache it is not known, nor does it matter there.
    """

    name: str
    fingerprint: str
    layers: tuple[str, ...]
    layout: Layout
    cameras: Cameras | None
    latent_side: int
    text_rows: Float[Tensor, "row width"]
    cameras_of: str = ""
    dtype: str = "float32"
    older_fingerprint: Callable[[], str] = str
    cameras_mark: str = ""


def layout_told(layout: Layout) -> str:
    """A layout as files tell it: empty for the 3 x 2 of Zero123++ and for a single view, as if there were no others."""
    return "" if layout in (Layout(3, 2), Layout(1, 1)) else layout.text


def views_told(cameras_of: str, layout: Layout, cameras: Cameras | None) -> dict[str, str | None]:
    """What a run that goes on compares of its views; all None as in checkpoints of versions that had no choice.

    Cameras from a file are told by their numbers as well, since a file may change.
    """
    numbers = file_mark(cameras_of, cameras) or None
    return {"cameras_of": cameras_of or None, "layout": layout_told(layout) or None, "cameras": numbers}


def file_mark(cameras_of: str, cameras: Cameras | None) -> str:
    """A short hash of cameras that were read from a file, which may change; empty for others."""
    if not cameras_of or cameras_of in RIGS or cameras is None:
        return ""
    return hashlib.sha256(json.dumps(cameras.to_dict()).encode()).hexdigest()[:16]


def model_facts(backend: Backend, layers: str | Sequence[str], cameras: Cameras | None) -> ModelFacts:
    """The facts of a loaded model; ``cameras`` are those of the objects' views.

    The words behind the text rows are drawn from a generator of their own: they belong to the model, not to a run.
    """
    return ModelFacts(
        backend.name,
        backend.fingerprint,
        tuple(cross_attention_layers(backend.unet, layers)),
        backend.layout,
        cameras,
        backend.latent_size(backend.view_size, backend.view_size)[0],
        backend.text_statistics(torch.Generator().manual_seed(0)).float().cpu(),
        backend.cameras_of,
        backend.precision.dtype,
        backend.older_fingerprint,
        file_mark(backend.cameras_of, backend.cameras),
    )
