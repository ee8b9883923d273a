"""Maps over a view: where they peak, where they expect a point, how wide they are; and layers made one map.

Positions are xy in the unit square of a view; pixel i of n has its centre at (i + 0.5)/n.
Half-precision maps are worked on in float32: sums over thousands of pixels do not survive float16.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from keyorbit.views import Layout, split_views


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """What one cross-attention layer says about the tokens: logits or attention.

    maps: [batch head position token], positions row by row; size: (height, width) of the layer's grid.
    Raises ValueError when the positions do not fill that size.
    """

    name: str
    maps: Float[Tensor, "batch head position token"]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.maps.shape[2] != self.size[0] * self.size[1]:
            raise ValueError(
                f"layer {self.name!r} has {self.maps.shape[2]} positions, not {self.size[0]} × {self.size[1]}"
                f": take its size from views.grid_size"
            )


def pixel_centers(
    height: int, width: int, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Float[Tensor, "{height} {width} 2"]:
    """xy of every pixel's centre, in the unit square: [height width 2]."""
    ys, xs = _axis(height, dtype, device), _axis(width, dtype, device)
    return torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)], dim=-1)


def to_map(
    x: Float[Tensor, "*batch position token"], height: int, width: int
) -> Float[Tensor, "*batch token {height} {width}"]:
    """Positions, row by row, back to a picture per token. ValueError when they do not fill height × width."""
    if x.shape[-2] != height * width:
        raise ValueError(f"{x.shape[-2]} positions do not fill {height} × {width}: see views.grid_size")
    return rearrange(x, "... (h w) t -> ... t h w", h=height, w=width)


def resize(
    maps: Float[Tensor, "*batch height width"], size: tuple[int, int], mode: str = "bilinear"
) -> Float[Tensor, "*batch new_height new_width"]:
    """Change of size to (height, width): "bilinear", "bicubic" or "nearest-exact".

    Unit-square positions stay where they are.

    Do this per view, after the split: on a grid it would mix neighbouring views.
    """
    if maps.shape[-2:] == size:
        return maps
    if mode == "nearest-exact":
        flat = F.interpolate(maps.reshape(-1, 1, *maps.shape[-2:]), size=size, mode=mode)
        return flat.reshape(*maps.shape[:-2], *size)
    # Linear and separable, so two small products; on a CPU interpolate's backward takes ten times as long.
    rows, columns = (_interpolation(old, new, mode, maps) for old, new in zip(maps.shape[-2:], size, strict=True))
    return rows @ (maps @ columns.T)


def _interpolation(old: int, new: int, mode: str, like: Tensor) -> Float[Tensor, "{new} {old}"]:
    """What ``F.interpolate`` does to a column of ``old`` values, as a matrix."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    unit = torch.eye(old, dtype=dtype, device=like.device)[None, None]
    return F.interpolate(unit, size=(new, old), mode=mode, align_corners=False)[0, 0].to(like.dtype)


def spatial_softmax(
    logits: Float[Tensor, "*batch height width"], temperature: float = 1.0
) -> Float[Tensor, "*batch height width"]:
    """Heatmaps from logits: a softmax over the pixels of each map. ValueError unless temperature > 0."""
    if temperature <= 0:
        raise ValueError(f"a temperature of {temperature} gives no softmax: use a number above 0")
    flat = _at_least_float32(logits).flatten(-2) / temperature
    return flat.softmax(dim=-1).reshape(logits.shape)


def normalize(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Heatmaps from maps ≥ 0: each sums to 1 over its pixels; a map without any mass becomes uniform."""
    maps = _at_least_float32(maps)
    total = maps.sum(dim=(-2, -1), keepdim=True)
    empty = total <= torch.finfo(maps.dtype).tiny
    # The inner `where` keeps the unused branch's gradient finite.
    filled = maps / torch.where(empty, 1.0, total)
    return torch.where(empty, 1.0 / (maps.shape[-1] * maps.shape[-2]), filled)


def argmax_rowcol(maps: Float[Tensor, "*batch height width"]) -> Int[Tensor, "*batch 2"]:
    """Row and column of each map's greatest value (the first of equals)."""
    index = maps.detach().flatten(-2).argmax(dim=-1)
    width = maps.shape[-1]
    return torch.stack([index // width, index % width], dim=-1)


def argmax_xy(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2"]:
    """Centre of each map's greatest pixel, xy in the unit square. It has no gradient."""
    maps = _at_least_float32(maps.detach())
    size = torch.tensor([maps.shape[-1], maps.shape[-2]], dtype=maps.dtype, device=maps.device)
    return (argmax_rowcol(maps).flip(-1).to(maps.dtype) + 0.5) / size


def soft_argmax_xy(heatmaps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2"]:
    """Expected position under heatmaps that sum to 1 over space, xy in the unit square; differentiable."""
    heatmaps = _at_least_float32(heatmaps)
    xs, ys = _axes_of(heatmaps)
    return torch.stack([(heatmaps.sum(-2) * xs).sum(-1), (heatmaps.sum(-1) * ys).sum(-1)], dim=-1)


def windowed_soft_argmax_xy(maps: Float[Tensor, "*batch height width"], radius: int) -> Float[Tensor, "*batch 2"]:
    """Expected position within `radius` pixels (rows and columns) of the greatest pixel; maps ≥ 0.

    The window keeps far-off second peaks and the background from pulling the answer. Where it lies has no
    gradient.
    Raises ValueError for a negative radius.
    """
    if radius < 0:
        raise ValueError(f"a window of radius {radius} is empty: use 0 pixels or more")
    rows, cols = argmax_rowcol(maps)[..., None, :].unbind(-1)
    near_row = (torch.arange(maps.shape[-2], device=maps.device) - rows).abs() <= radius
    near_col = (torch.arange(maps.shape[-1], device=maps.device) - cols).abs() <= radius
    window = near_row[..., :, None] & near_col[..., None, :]
    masked = torch.where(window, _at_least_float32(maps), 0.0)
    # A map without mass would become uniform over the whole view; uniform over the window is what is meant.
    empty = masked.sum(dim=(-2, -1), keepdim=True) <= torch.finfo(masked.dtype).tiny
    return soft_argmax_xy(normalize(torch.where(empty, window.to(masked.dtype), masked)))


def subpixel_xy(maps: Float[Tensor, "*batch height width"], radius: int = 1) -> Float[Tensor, "*batch 2"]:
    """The greatest pixel, moved to the top of a Gaussian of any width and tilt through its neighbours; maps ≥ 0.

    The logarithm of a Gaussian is quadratic: one is fitted to it by least squares in the (2·radius + 1)² pixels round
    the peak, shifted inwards at the border, and is exact there. Where the fit has no top within a pixel and a half of
    the peak (plateaus, ridges, zeros), the peak pixel's centre is the answer; never a place outside the view.
    Differentiable in the maps but for where the window lies. Fitting in the logarithm: Guo 2011, A simple algorithm for
    fitting a Gaussian function.
    Raises ValueError for a radius below 1.
    """
    if radius < 1:
        raise ValueError(f"a window of radius {radius} has no slope: use 1 pixel or more")
    height, width = maps.shape[-2:]
    if min(height, width) < 2 * radius + 1:
        return argmax_xy(maps)
    maps = _at_least_float32(maps)
    peak = argmax_rowcol(maps)
    last = torch.tensor([height - 1 - radius, width - 1 - radius], device=maps.device)
    middle = peak.clamp_min(radius).minimum(last)
    steps = torch.arange(-radius, radius + 1, device=maps.device)
    near_row, near_col = (rearrange(part, "... -> ... 1") + steps for part in middle.unbind(-1))
    index = rearrange(near_row[..., :, None] * width + near_col[..., None, :], "... i j -> ... (i j)")
    window = maps.flatten(-2).gather(-1, index)
    floor = window.amax(-1, keepdim=True).clamp_min(1e-20) * 1e-12
    offset, is_top = _quadratic_top(window.maximum(floor).log(), radius)
    found = middle.flip(-1) + offset
    near = (found - peak.flip(-1)).abs().amax(-1) <= 1.5
    size = torch.tensor([width, height], dtype=maps.dtype, device=maps.device)
    return torch.where((is_top & near)[..., None], ((found + 0.5) / size).clamp(0, 1), argmax_xy(maps))


def _quadratic_top(
    window: Float[Tensor, "*batch pixel"], radius: int
) -> tuple[Float[Tensor, "*batch 2"], Bool[Tensor, "*batch"]]:
    """Where the least-squares quadratic of a square window is level, x and y in pixels from its middle; is it a top."""
    steps = torch.arange(-radius, radius + 1, dtype=window.dtype, device=window.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    terms = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=-1).flatten(0, 1)
    _, bx, by, cxx, cxy, cyy = (window @ torch.linalg.pinv(terms).T).unbind(-1)
    determinant = 4 * cxx * cyy - cxy.square()
    # Flat windows give rounding errors for coefficients.
    tiny = 1e-6
    is_top = (cxx < -tiny) & (cyy < -tiny) & (determinant > tiny**2)
    safe = torch.where(is_top, determinant, 1.0)
    return torch.stack([cxy * by - 2 * cyy * bx, cxy * bx - 2 * cxx * by], dim=-1) / safe[..., None], is_top


def covariance(heatmaps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2 2"]:
    """Covariance of the position under heatmaps that sum to 1, in units of the view's sides, order x, y."""
    heatmaps = _at_least_float32(heatmaps)
    xs, ys = _axes_of(heatmaps)
    mean_x, mean_y = soft_argmax_xy(heatmaps)[..., None, :].unbind(-1)
    dx, dy = xs - mean_x, ys - mean_y
    xx = (heatmaps.sum(-2) * dx.square()).sum(-1)
    yy = (heatmaps.sum(-1) * dy.square()).sum(-1)
    xy = ((heatmaps * dx[..., None, :]).sum(-1) * dy).sum(-1)
    return torch.stack([torch.stack([xx, xy], dim=-1), torch.stack([xy, yy], dim=-1)], dim=-2)


def spatial_variance(heatmaps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch"]:
    """Mean squared distance from the expected position (trace of the covariance), in squared view sides."""
    matrix = covariance(heatmaps)
    return matrix[..., 0, 0] + matrix[..., 1, 1]


def gaussian(
    xy: Float[Tensor, "*batch 2"], height: int, width: int, sigma: float
) -> Float[Tensor, "*batch {height} {width}"]:
    """Round Gaussians of peak 1 at xy; `sigma` in pixels of the map. Differentiable in xy.

    The target of StableKeypoints' localisation loss (Hedlin et al. 2024, `gaussian_circle`), for any height
    and width. The peak value itself is reached only where xy is a pixel's centre.
    Raises ValueError unless sigma > 0.
    """
    if sigma <= 0:
        raise ValueError(f"a Gaussian of sigma {sigma} pixels has no width: use a number above 0")
    xs = _axis(width, xy.dtype, xy.device)
    ys = _axis(height, xy.dtype, xy.device)
    dx = (xs - xy[..., :1]) * (width / sigma)
    dy = (ys - xy[..., 1:]) * (height / sigma)
    return (-dy.square() / 2).exp()[..., :, None] * (-dx.square() / 2).exp()[..., None, :]


def gaussian_kl(heatmaps: Float[Tensor, "*batch height width"], sigma: float = 2.0) -> Float[Tensor, "*batch"]:
    """KL(G ‖ map) in nats per map, G the Gaussian of `sigma` pixels at the map's peak, both normalised; ≥ 0.

    0 for a map that is that Gaussian, large for a flat or many-peaked one. Source: StableKeypoints'
    `find_top_k_gaussian`, which first puts a softmax over the pixels; here maps (≥ 0) are divided by their
    sum.
    """
    heatmaps = normalize(heatmaps)
    target = normalize(gaussian(argmax_xy(heatmaps), heatmaps.shape[-2], heatmaps.shape[-1], sigma))
    floor = 1e-12  # A pixel of mass 0 costs a finite amount, and has a gradient.
    divergence = target * ((target + floor).log() - (heatmaps + floor).log())
    return divergence.sum(dim=(-2, -1))


def view_maps(
    layers: Sequence[LayerMaps], layout: Layout, size: tuple[int, int]
) -> Float[Tensor, "batch view token height width"]:
    """One map per token and view: the mean over the heads and layers, each view brought to `size`.

    Heads are averaged before the change of size, which is linear, so the result is the same and cheaper.
    Each view is resized after the split: nothing bleeds between neighbours. Layers count equally.
    Raises ValueError when there is no layer, or naming the layer that does not divide or does not match.
    """
    return _mean_of_layers(layers, lambda layer: _layer_views(layer, layout, size))


def upsampled_attention(
    layers: Sequence[LayerMaps], layout: Layout, size: tuple[int, int], text_tokens: int = 0
) -> Float[Tensor, "batch view token height width"]:
    """StableKeypoints' attention map per token and view, 0…1: enlarge, softmax over the tokens, then average.

    The layers hold logits of all tokens of the softmax, per head; the first ``text_tokens`` of them are left out of the
    result. In StableKeypoints (Hedlin et al. 2024, `register_attention_control`) the context is the learnable tokens
    alone, and the features are enlarged before `to_q`. That is linear and without bias, so enlarging its logits is the
    same for fewer channels. Bicubic, as there. `view_maps` averages what was put through the softmax at the layer's
    own size: broader, and cheaper.
    Raises ValueError when there is no layer, or naming the layer that does not divide or does not match.
    """

    def enlarged(layer: LayerMaps) -> Tensor:
        views = _split_layer(layer, _at_least_float32(layer.maps), layout)
        maps = resize(views, size, "bicubic").softmax(dim=2)[:, :, text_tokens:]
        return rearrange(maps.mean(dim=1), "b t v h w -> b v t h w")

    return _mean_of_layers(layers, enlarged)


def _mean_of_layers(layers: Sequence[LayerMaps], read: Callable[[LayerMaps], Tensor]) -> Tensor:
    if not layers:
        raise ValueError("there is no layer to average: record at least one cross-attention layer")
    total: Tensor | None = None
    for layer in layers:
        maps = read(layer)
        if total is not None and maps.shape != total.shape:
            raise ValueError(
                f"layer {layer.name!r} gives maps of shape {list(maps.shape)}, others {list(total.shape)}: "
                f"all layers must come from the same batch and tokens"
            )
        total = maps if total is None else total + maps
    assert total is not None
    return total / len(layers)


def _layer_views(
    layer: LayerMaps, layout: Layout, size: tuple[int, int]
) -> Float[Tensor, "batch view token height width"]:
    views = _split_layer(layer, _at_least_float32(layer.maps).mean(dim=1), layout)
    return resize(rearrange(views, "b t v h w -> b v t h w"), size)


def _split_layer(
    layer: LayerMaps, maps: Float[Tensor, "*lead position token"], layout: Layout
) -> Float[Tensor, "*lead token view height width"]:
    try:
        layout.check(*layer.size)
    except ValueError as error:
        raise ValueError(f"layer {layer.name!r}: {error}") from error
    return split_views(to_map(maps, *layer.size), layout)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _axis(count: int, dtype: torch.dtype | None, device: torch.device | None) -> Float[Tensor, " {count}"]:
    return (torch.arange(count, dtype=dtype or torch.get_default_dtype(), device=device) + 0.5) / count


def _axes_of(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Unit-square x of every column and y of every row of the maps."""
    return _axis(maps.shape[-1], maps.dtype, maps.device), _axis(maps.shape[-2], maps.dtype, maps.device)
