"""Sheets of pictures that show what a model in training generates."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.geometry.views import split_views
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.pictures import on_grey


def sample_sheet(
    backend: Zero123PlusBackend,
    objects: Sequence[ObjectViews],
    steps: int,
    tokens: Float[Tensor, "token context_width"] | None = None,
) -> UInt8[ndarray, "height width 3"]:
    """The input picture and the true views above the views generated from the input alone, object by object.

    ``tokens`` follow the text, see :meth:`Zero123PlusBackend.generate`.
    """
    rows = []
    for i, thing in enumerate(objects):
        if thing.views is None:
            raise ValueError(f"{thing.name} has no views to show beside the generated ones")
        grid = backend.generate([thing.input_image], torch.Generator().manual_seed(i), steps, tokens=tokens)[0].cpu()
        views = split_views(grid, backend.layout).movedim(1, 0)
        size = (backend.view_size, backend.view_size)
        source = np.asarray(on_grey(thing.input_image).resize(size))
        true = F.interpolate(thing.views, size=size, mode="bilinear", antialias=True)
        for line in (true, views):
            pictures = [(255 * view).round().byte().movedim(0, -1).numpy() for view in line]
            rows.append(np.concatenate([source, *pictures], axis=1))
    return np.concatenate(rows)
