"""Sampling and order statistics whose results on a GPU can be had in a fixed order."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def bilinear(
    images: Float[Tensor, "item channel height width"], xy: Float[Tensor, "item *place 2"], edge: str = "zeros"
) -> Float[Tensor, "item channel *place"]:
    """Sample images at positions in the unit square, bilinearly and differentiably in both.

    On a GPU the gradient of torch's own sampler adds up in no fixed order, and on Apple's some versions of torch have
    no gradient of it and no border. On a CPU its gradient at a position that is no number, with a border, reads memory
    that is not its own, and the process crashes. With ``torch.use_deterministic_algorithms(True)``, on Apple's, and at
    such positions the four neighbours are gathered instead; the values are the same to rounding.

    Args:
        images: pictures or maps.
        xy: positions; pixel i of n has its centre at (i + 0.5)/n.
        edge: what lies outside: ``zeros``, or the ``border`` repeated. Default zeros.
    """
    places = xy.flatten(1, -2)
    crashes = edge == "border" and places.device.type == "cpu" and bool(places.isnan().any())
    if torch.are_deterministic_algorithms_enabled() or images.is_mps or crashes:
        found = _gathered(images, places, edge)
    else:
        grid = 2 * places[:, :, None] - 1
        found = F.grid_sample(images, grid, mode="bilinear", padding_mode=edge, align_corners=False)
    return found.reshape(*images.shape[:2], *xy.shape[1:-1])


def lower_median(values: Float[Tensor, "*batch"], dim: int) -> Float[Tensor, "*rest"]:
    """Return the median along an axis; of an even number of values the lower of the two in the middle.

    It is the value of ``torch.median``, which on a GPU refuses ``torch.use_deterministic_algorithms(True)`` because of
    the indices that it returns besides. Values that are not numbers count as the greatest.
    """
    found: Tensor = values.sort(dim).values.select(dim, (values.shape[dim] - 1) // 2)
    return found


def _gathered(
    images: Float[Tensor, "item channel height width"], xy: Float[Tensor, "item place 2"], edge: str
) -> Float[Tensor, "item channel place"]:
    height, width = images.shape[-2:]
    x, y = xy[..., 0] * width - 0.5, xy[..., 1] * height - 0.5
    if edge == "border":
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    flat, total = images.flatten(2), images.new_zeros(())
    for column, across in ((left, left + 1 - x), (left + 1, x - left)):
        for row, down in ((top, top + 1 - y), (top + 1, y - top)):
            within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            # A position that is no number is no index; its weights make the value no number either.
            index = place.nan_to_num(0.0).long()
            value = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1))
            total = total + value * (across * down * within)[:, None]
    return total
