"""Heatmaps over a view: their peaks, expected positions and widths.

Positions are xy in the unit square of a view; pixel i of n has its centre at (i + 0.5)/n. Half-precision maps are
computed in float32: sums over thousands of pixels overflow or lose digits in float16.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

# About a subject's peak no other is looked for; in heights of the map.
_APART = 0.05


def pixel_centers(
    height: int, width: int, dtype: torch.dtype | None = None, device: torch.device | None = None
) -> Float[Tensor, "{height} {width} 2"]:
    """xy of every pixel's centre, in the unit square: [height width 2]."""
    ys, xs = _axis(height, dtype, device), _axis(width, dtype, device)
    return torch.stack([xs.expand(height, width), ys[:, None].expand(height, width)], dim=-1)


def resize(
    maps: Float[Tensor, "*batch height width"], size: tuple[int, int], mode: str = "bilinear"
) -> Float[Tensor, "*batch new_height new_width"]:
    """Resize maps to (height, width) by "bilinear", "bicubic" or "nearest-exact" interpolation.

    Positions in the unit square stay where they are. Resize each view after the split: on a grid it would mix
    neighbouring views.
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
    """Return, as a matrix, what ``F.interpolate`` does to a column of ``old`` values."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    unit = torch.eye(old, dtype=dtype, device=like.device)[None, None]
    return F.interpolate(unit, size=(new, old), mode=mode, align_corners=False)[0, 0].to(like.dtype)


def spatial_softmax(
    logits: Float[Tensor, "*batch height width"], temperature: float = 1.0
) -> Float[Tensor, "*batch height width"]:
    """Compute heatmaps by a softmax over the pixels of each map. Raises ValueError unless temperature > 0."""
    if temperature <= 0:
        raise ValueError(f"a temperature of {temperature} gives no softmax: use a number above 0")
    flat = at_least_float32(logits).flatten(-2) / temperature
    return flat.softmax(dim=-1).reshape(logits.shape)


def normalize(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Divide maps ≥ 0 by their sums, so that each sums to 1. A map whose values are all 0 becomes uniform."""
    maps = at_least_float32(maps)
    total = maps.sum(dim=(-2, -1), keepdim=True)
    empty = total <= torch.finfo(maps.dtype).tiny
    # The inner `where` keeps the unused branch's gradient finite.
    filled = maps / torch.where(empty, 1.0, total)
    return torch.where(empty, 1.0 / (maps.shape[-1] * maps.shape[-2]), filled)


def argmax_rowcol(maps: Float[Tensor, "*batch height width"]) -> Int[Tensor, "*batch 2"]:
    """Return row and column of each map's greatest value (the first one if several are equal)."""
    index = maps.detach().flatten(-2).argmax(dim=-1)
    width = maps.shape[-1]
    return torch.stack([index // width, index % width], dim=-1)


def argmax_xy(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2"]:
    """Return the centre of each map's greatest pixel, xy in the unit square. It has no gradient."""
    maps = at_least_float32(maps.detach())
    row, column = argmax_rowcol(maps).to(maps.dtype).unbind(-1)
    return torch.stack([(column + 0.5) / maps.shape[-1], (row + 0.5) / maps.shape[-2]], dim=-1)


def soft_argmax_xy(heatmaps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2"]:
    """Compute the expected position under heatmaps that sum to 1, xy in the unit square. It is differentiable."""
    heatmaps = at_least_float32(heatmaps)
    xs, ys = _axes_of(heatmaps)
    return torch.stack([(heatmaps.sum(-2) * xs).sum(-1), (heatmaps.sum(-1) * ys).sum(-1)], dim=-1)


def windowed_soft_argmax_xy(maps: Float[Tensor, "*batch height width"], radius: int) -> Float[Tensor, "*batch 2"]:
    """Compute the expected position within `radius` pixels (rows and columns) of the greatest pixel, of maps ≥ 0.

    The window keeps distant second peaks and the background from moving the result. The position of the window has no
    gradient. Raises ValueError for a negative radius.
    """
    if radius < 0:
        raise ValueError(f"a window of radius {radius} is empty: use 0 pixels or more")
    rows, cols = argmax_rowcol(maps)[..., None, :].unbind(-1)
    near_row = (torch.arange(maps.shape[-2], device=maps.device) - rows).abs() <= radius
    near_col = (torch.arange(maps.shape[-1], device=maps.device) - cols).abs() <= radius
    window = near_row[..., :, None] & near_col[..., None, :]
    masked = torch.where(window, at_least_float32(maps), 0.0)
    # A map without mass would become uniform over the whole view; uniform over the window is what is meant.
    empty = masked.sum(dim=(-2, -1), keepdim=True) <= torch.finfo(masked.dtype).tiny
    return soft_argmax_xy(normalize(torch.where(empty, window.to(masked.dtype), masked)))


def covariance(heatmaps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2 2"]:
    """Compute the covariance of the position under heatmaps that sum to 1, in squared sides of the view, order x, y."""
    heatmaps = at_least_float32(heatmaps)
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
    """Compute round Gaussians of peak 1 at xy, with `sigma` in pixels of the map. Differentiable in xy.

    This is the target of StableKeypoints' localisation loss (Hedlin et al. 2024, `gaussian_circle`), for any height and
    width. The value 1 is reached only where xy is a pixel's centre. Raises ValueError unless sigma > 0.
    """
    if sigma <= 0:
        raise ValueError(f"a Gaussian of sigma {sigma} pixels has no width: use a number above 0")
    xs = _axis(width, xy.dtype, xy.device)
    ys = _axis(height, xy.dtype, xy.device)
    dx = (xs - xy[..., :1]) * (width / sigma)
    dy = (ys - xy[..., 1:]) * (height / sigma)
    return (-dy.square() / 2).exp()[..., :, None] * (-dx.square() / 2).exp()[..., None, :]


def subject_peaks(maps: Float[Tensor, "*batch height width"], subjects: int) -> Float[Tensor, "subject *batch 2"]:
    """Each map's greatest pixel, then the greatest beyond a twentieth of the height from it, and so on: xy, 0…1.

    So StableKeypoints finds several subjects in one picture (Hedlin et al. 2024, eval.py, `find_k_max_pixels`). It has
    no gradient. Raises ValueError for fewer than one subject.
    """
    if subjects < 1:
        raise ValueError(f"{subjects} subjects cannot be looked for: ask for 1 or more")
    rest = at_least_float32(maps.detach())
    height, width = rest.shape[-2:]
    rows = torch.arange(height, device=rest.device)[:, None]
    columns = torch.arange(width, device=rest.device)
    found = [argmax_xy(rest)]
    for _ in range(subjects - 1):
        x, y = found[-1][..., None, None, :].unbind(-1)
        column, row = x * width, y * height
        # As published, from the peak's centre to the other pixels' corners.
        away = (rows - row).square() + (columns - column).square()
        rest = rest * (away > (_APART * height) ** 2)
        found.append(argmax_xy(rest))
    return torch.stack(found)


def subject_spots(
    maps: Float[Tensor, "*batch height width"], sigma: float, subjects: int
) -> Float[Tensor, "*batch height width"]:
    """The mean of the Gaussians at the subjects' peaks, each of peak 1; ``sigma`` in pixels. It has no gradient."""
    height, width = maps.shape[-2:]
    return gaussian(subject_peaks(maps, subjects), height, width, sigma).mean(0)


def gaussian_kl(heatmaps: Float[Tensor, "*batch height width"], sigma: float = 2.0) -> Float[Tensor, "*batch"]:
    """Compute KL(G ‖ map) in nats for each map, where G is the Gaussian of `sigma` pixels at its peak; ≥ 0.

    Both are normalised. The result is 0 for a map that equals the Gaussian, and large for a flat map or one with many
    peaks. Source: StableKeypoints' `find_top_k_gaussian`, which first applies a softmax over the pixels; here maps (≥
    0) are divided by their sum.
    """
    heatmaps = normalize(heatmaps)
    target = normalize(gaussian(argmax_xy(heatmaps), heatmaps.shape[-2], heatmaps.shape[-1], sigma))
    floor = 1e-12  # A pixel of mass 0 costs a finite amount, and has a gradient.
    divergence = target * ((target + floor).log() - (heatmaps + floor).log())
    return divergence.sum(dim=(-2, -1))


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half-precision tensors to float32; other tensors are returned unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _axis(count: int, dtype: torch.dtype | None, device: torch.device | None) -> Float[Tensor, " {count}"]:
    return (torch.arange(count, dtype=dtype or torch.get_default_dtype(), device=device) + 0.5) / count


def _axes_of(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return x of every column and y of every row of the maps, in the unit square."""
    return _axis(maps.shape[-1], maps.dtype, maps.device), _axis(maps.shape[-2], maps.dtype, maps.device)


def with_peak_one(maps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch height width"]:
    """Divide maps by their greatest value. The gradient passes through the greatest value too."""
    return maps / maps.amax((-2, -1), keepdim=True)
