"""Affine warps of a view: draw them, warp pictures by them, and map heatmaps back."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.geometry.heatmaps import pixel_centers
from keyorbit.geometry.sampling import bilinear


@dataclass(frozen=True, eq=False)
class Warp:
    """An affine map of the unit square: new_xy = A·xy + t, with matrix [*batch 2 3] = (A | t)."""

    matrix: Float[Tensor, "*batch 2 3"]

    def apply(self, xy: Float[Tensor, "*batch keypoint 2"]) -> Float[Tensor, "*batch keypoint 2"]:
        """Apply the warp to points."""
        matrix = self.matrix.to(xy)  # Drawn on the generator's device, used on the maps'.
        linear, offset = matrix[..., None, :, :2], matrix[..., None, :, 2]
        return (linear * xy[..., None, :]).sum(-1) + offset

    def inverse(self) -> "Warp":
        """Return the warp that undoes this one."""
        (a, b), (c, d) = (row.unbind(-1) for row in self.matrix[..., :2].unbind(-2))
        adjugate = torch.stack([torch.stack([d, -b], dim=-1), torch.stack([-c, a], dim=-1)], dim=-2)
        linear = adjugate / (a * d - b * c)[..., None, None]
        offset = -(linear * self.matrix[..., None, :, 2]).sum(-1)
        return Warp(torch.cat([linear, offset[..., None]], dim=-1))

    def compose(self, other: "Warp") -> "Warp":
        """Return the warp that applies `other` first, then this one: a.compose(b).apply(x) is a.apply(b.apply(x))."""
        columns = other.matrix.transpose(-1, -2)[..., :, None, :]
        product = (self.matrix[..., None, :, :2] * columns).sum(-1).transpose(-1, -2)
        offset = torch.zeros_like(product)
        offset[..., 2] = self.matrix[..., 2]
        return Warp(product + offset)

    @classmethod
    def identity(cls, batch_shape: tuple[int, ...] = ()) -> "Warp":
        """Return warps that leave every point where it is."""
        return Warp(torch.eye(2, 3).expand(*batch_shape, 2, 3))


def random_warps(
    shape: tuple[int, ...],
    generator: torch.Generator,
    rotation_deg: float = 15.0,
    scale: tuple[float, float] = (0.8, 1.0),
    shift: float = 0.125,
    aspect: float = 1.0,
    dtype: torch.dtype = torch.float32,
    backwards: bool = False,
) -> Warp:
    """Draw warps uniformly: a rotation and a change of size about the centre, then a shift.

    StableKeypoints (Hedlin et al. 2024) draws the map from output to input in [-1, 1]: its shift of 0.25 is 0.125 of a
    side, and its scale of 0.8-1 enlarges the content by 1-1.25. ``backwards`` draws so: uniform are then the inverse's
    angle, size and shift.

    Args:
        shape: batch shape of the warps.
        generator: source of the random numbers, which are drawn on its device.
        rotation_deg: largest rotation in either direction, degrees. Default 15.
        scale: (low, high), size of the content after the warp over that before. Default (0.8, 1).
        shift: largest shift in either direction, in sides of the view. Default 0.125.
        aspect: width over height of the view in pixels, so that a rotation is one in pixels. Default 1.
        dtype: of the matrices. Default float32.
        backwards: whether the inverse is what is drawn, of sizes from 1/high to 1/low. Default False.

    Raises:
        ValueError: not 0 < low ≤ high.
    """
    low, high = scale
    if not 0 < low <= high:
        raise ValueError(f"a scale range of {scale} cannot be drawn from: give 0 < low ≤ high")
    if backwards:
        low, high = 1 / high, 1 / low
    device = generator.device
    draws = torch.rand((4, *shape), generator=generator, dtype=dtype, device=device)
    angle = (2 * draws[0] - 1) * math.radians(rotation_deg)
    size = low + (high - low) * draws[1]
    moves = (2 * draws[2:].movedim(0, -1) - 1) * shift
    cos, sin = size * angle.cos(), size * angle.sin()
    # x is counted in widths and y in heights: the off-diagonal terms carry the ratio.
    linear = torch.stack([torch.stack([cos, -sin / aspect], dim=-1), torch.stack([sin * aspect, cos], dim=-1)], dim=-2)
    offset = 0.5 - 0.5 * linear.sum(-1) + moves
    drawn = Warp(torch.cat([linear, offset[..., None]], dim=-1))
    return drawn.inverse() if backwards else drawn


def warp_image(
    images: Float[Tensor, "*batch channel height width"], warp: Warp, fill: float | Tensor | None = None
) -> Float[Tensor, "*batch channel height width"]:
    """Resample pictures bilinearly so that what was at xy is at `warp.apply(xy)`.

    Args:
        images: pictures.
        warp: its batch shape is the pictures' or broadcasts to it.
        fill: default None: the border is repeated outwards. A number, or one for each channel [channel], fills what
            comes from outside the picture.
    """
    height, width = images.shape[-2:]
    lead = images.shape[:-3]
    matrix = warp.inverse().matrix.to(images).expand(*lead, 2, 3).reshape(-1, 2, 3)
    centers = pixel_centers(height, width, images.dtype, images.device).reshape(1, -1, 2)
    xy = Warp(matrix).apply(centers.expand(len(matrix), -1, -1)).reshape(-1, height, width, 2)
    flat = images.reshape(-1, *images.shape[-3:])
    if fill is None:
        return bilinear(flat, xy, "border").reshape(images.shape)
    colour = fill.to(images).reshape(-1, 1, 1) if isinstance(fill, Tensor) else fill
    return (bilinear(flat - colour, xy) + colour).reshape(images.shape)


def unwarp(maps: Float[Tensor, "*batch token height width"], warp: Warp) -> Float[Tensor, "*batch token height width"]:
    """Map heatmaps of warped pictures back to the original's pixels; 0 where the warped picture ends."""
    return warp_image(maps, warp.inverse(), fill=0.0)


def inside(warp: Warp, height: int, width: int) -> Bool[Tensor, "*batch {height} {width}"]:
    """Compute which pixels of the original a warped picture of the same size contains: [*batch height width].

    A pixel counts when its bilinear neighbours all lie in the warped picture: `unwarp` is exact there.
    """
    matrix = warp.matrix
    centers = pixel_centers(height, width, matrix.dtype, matrix.device).reshape(-1, 2)
    xy = warp.apply(centers.expand(*matrix.shape[:-2], -1, -1))
    margin = 0.5 - 1e-3  # A thousandth of a pixel of grace, or rounding would cut off the identity's border.
    x, y = xy[..., 0] * width, xy[..., 1] * height
    visible = (x >= margin) & (x <= width - margin) & (y >= margin) & (y <= height - margin)
    return visible.reshape(*matrix.shape[:-2], height, width)
