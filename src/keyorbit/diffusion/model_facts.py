"""What discovery needs to know of a model whose weights it may not have."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.attention import cross_attention_layers
from keyorbit.diffusion.backends.base import Backend
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What a discovery needs to know of a model whose weights it may not have.

    layers: names of those that are read; latent_side: of one view; text_rows: what its text embeddings look like.
    """

    name: str
    fingerprint: str
    layers: tuple[str, ...]
    layout: Layout
    cameras: Cameras | None
    latent_side: int
    text_rows: Float[Tensor, "row width"]
    cameras_of: str = ""


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
    )
