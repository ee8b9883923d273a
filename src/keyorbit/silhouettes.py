"""Where the object is in its views: told from a plain background, or else from what the model's queries say."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from keyorbit.attention import capture_attention
from keyorbit.backends.base import Backend
from keyorbit.heatmaps import resize
from keyorbit.views import Layout, merge_views

# How far a channel (0…1) may be from the background's colour.
_SAME = 0.06
# The share of a border's pixels that a plain background has to have.
_PLAIN = 0.75
# Directions of the queries that are compared, and how many of the border's places may belong to the object.
_DIRECTIONS, _ON_BORDER = 16, 0.05


@runtime_checkable
class _Queries(Protocol):
    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def query(self) -> Tensor | None: ...


def silhouettes(
    views: Float[Tensor, "view 3 height width"], threshold: float = _SAME
) -> Bool[Tensor, "view height width"]:
    """Where a view differs from its background, which is taken to be the median colour of its border."""
    return _from_background(views) > threshold


def plain_background(views: Float[Tensor, "view 3 height width"], threshold: float = _SAME) -> Bool[Tensor, " view"]:
    """Whether three quarters of a view's border have one colour, so that :func:`silhouettes` means something."""
    return (_border(_from_background(views)[:, None])[:, 0] <= threshold).float().mean(-1) >= _PLAIN


def silhouettes_from_queries(
    layers: Sequence[_Queries], layout: Layout, size: tuple[int, int]
) -> Bool[Tensor, "view height width"]:
    """Where the queries of one grid are unlike those along the borders of its views, ``size`` a view.

    The queries of all layers side by side, each layer with the same say, at the finest layer's size; of them the
    16 directions that vary most. A place is as foreign as it is far from the views' borders: from the nearest
    twentieth of all border places, so that an object may touch some borders. What is foreign is split from what is not
    where the two differ most (Otsu 1979, on the logarithm). Nothing was learned for this, and no colour is used.
    """
    features = _view_features(layers, layout)
    places = rearrange(features, "v c h w -> (v h w) c")
    places = places - places.mean(0)
    _, _, directions = torch.linalg.svd(places, full_matrices=False)
    places = places @ directions[:_DIRECTIONS].T
    ground = rearrange(_border(_as_maps(places, features)), "v c n -> (v n) c")
    nearest = max(1, round(_ON_BORDER * len(ground)))
    foreign = torch.cdist(places, ground).kthvalue(nearest, dim=1).values.clamp_min(1e-9).log()
    away = resize(_as_maps((foreign - _otsu(foreign))[:, None], features)[:, 0], size)
    return away > 0


def model_silhouettes(
    views: Float[Tensor, "view 3 height width"], image: Image.Image, backend: Backend, seed: int = 0
) -> Bool[Tensor, "view height width"]:
    """Silhouettes of views on any background, from one run of the UNet; see :func:`silhouettes_from_queries`."""
    generator, side = torch.Generator().manual_seed(seed), backend.view_size
    shown = views
    if views.shape[-2:] != (side, side):
        shown = F.interpolate(views, size=(side, side), mode="bilinear", antialias=True)
    clean = backend.encode_images(merge_views(shown.movedim(0, 1), backend.layout)[None])
    condition = backend.encode_condition([image])
    noise, condition_noise = (
        torch.randn(like.shape, generator=generator).to(like) for like in (clean, condition.latent)
    )
    timestep = torch.tensor([backend.default_timestep], device=backend.device)
    noised = backend.add_noise(clean, noise, timestep)
    with (
        torch.no_grad(),
        capture_attention(
            backend.unet, backend.default_layers, ("grid",), normalizer=False, queries=True, stop=True
        ) as record,
    ):
        backend.denoise(noised, timestep, condition.context, condition.latent, condition_noise)
    size = (views.shape[-2], views.shape[-1])
    return silhouettes_from_queries(record.layers(), backend.layout, size).to(views.device)


def silhouette_distance(masks: Bool[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """How far every pixel is from the nearest pixel of the silhouette, in sides of the view; 0 on it.

    A view without any silhouette is 0 everywhere: it says nothing of where the object is.
    """
    height, width = masks.shape[-2:]
    fields = [
        distance_transform_edt(~mask, sampling=(1 / height, 1 / width)) if mask.any() else np.zeros(mask.shape)
        for mask in masks.reshape(-1, height, width).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(fields)).float().reshape(masks.shape).to(masks.device)


def grown_masks(
    masks: Bool[Tensor, "version view height width"], size: tuple[int, int]
) -> Float[Tensor, "version view new_height new_width"]:
    """Silhouettes at the maps' size, a pixel wider: a heatmap on an edge may lean over it."""
    return F.max_pool2d(resize(masks.float(), size), 3, stride=1, padding=1)


def _border(maps: Float[Tensor, "view channel height width"]) -> Float[Tensor, "view channel place"]:
    """The outermost pixels, corners twice."""
    return torch.cat([maps[..., 0, :], maps[..., -1, :], maps[..., :, 0], maps[..., :, -1]], dim=-1)


def _from_background(views: Float[Tensor, "view 3 height width"]) -> Float[Tensor, "view height width"]:
    """The greatest difference of a channel to the border's median colour."""
    ground = _border(views).median(dim=-1).values[..., None, None]
    return (views - ground).abs().amax(1)


def _view_features(layers: Sequence[_Queries], layout: Layout) -> Float[Tensor, "view channel side side"]:
    side = max(layer.size[0] for layer in layers) // layout.rows
    parts = []
    for layer in layers:
        assert layer.query is not None
        rows, columns = layer.size[0] // layout.rows, layer.size[1] // layout.cols
        query = rearrange(
            layer.query[0].float(), "n (R r C c) d -> (R C) (n d) r c", R=layout.rows, r=rows, C=layout.cols, c=columns
        )
        query = query - query.mean((0, 2, 3), keepdim=True)
        scale = query.square().sum(1).mean().sqrt().clamp_min(1e-9)
        parts.append(resize(query / scale, (side, side)))
    return torch.cat(parts, dim=1)


def _as_maps(
    places: Float[Tensor, "place channel"], like: Float[Tensor, "view _ height width"]
) -> Float[Tensor, "view channel height width"]:
    return rearrange(places, "(v h w) c -> v c h w", v=len(like), h=like.shape[-2])


def _otsu(values: Float[Tensor, " place"]) -> float:
    """The threshold that splits values into two groups of the least variance within."""
    ordered = values.double().sort().values
    below = torch.arange(1, len(ordered), dtype=torch.float64, device=values.device)
    above = len(ordered) - below
    total = ordered.cumsum(0)
    gap = (total[-1] - total[:-1]) / above - total[:-1] / below
    place = int((below * above * gap.square()).argmax())
    return float((ordered[place] + ordered[place + 1]) / 2)
