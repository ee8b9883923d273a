"""How views lie in a grid, found by arithmetic from the size of a latent."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import repeat

from keyorbit.geometry.views import Layout, merge_views


@dataclass(frozen=True)
class Tiling:
    """A way to cut a latent; ``view`` is a view's height and width, None when the latent does not divide."""

    layout: Layout
    view: tuple[int, int] | None

    @property
    def square(self) -> bool:
        """Whether the views come out square."""
        return self.view is not None and self.view[0] == self.view[1]


@dataclass(frozen=True)
class GridAnalysis:
    """How the views lie in the latent that was seen, and what the transposed reading would do.

    ``tilings`` are all ways to lay that many views. ``misplaced`` is the share of positions that end in another view
    if the flattened map is read as the transposed grid, as the first attempt did.
    """

    latent: tuple[int, int]
    layout: Layout
    tilings: tuple[Tiling, ...]
    view_sizes: dict[tuple[int, int], tuple[int, int] | None]
    misplaced: float

    @property
    def view(self) -> tuple[int, int] | None:
        """Height and width of a view in the latent, as the model tiles it."""
        return next(tiling.view for tiling in self.tilings if tiling.layout == self.layout)


def analyse_grid(layout: Layout, latent: Sequence[int], sizes: Sequence[tuple[int, int]]) -> GridAnalysis:
    """Lay a model's number of views into a latent ``[batch channel height width]``; ``sizes`` are its feature maps.

    Raises:
        ValueError: the latent does not divide into the layout's views.
    """
    height, width = latent[-2:]
    count = layout.num_views
    layouts = [Layout(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    tilings = tuple(Tiling(tried, _view(tried, (height, width))) for tried in layouts)
    views = {size: _view(layout, size) for size in dict.fromkeys(sizes)}
    return GridAnalysis((height, width), layout, tilings, views, misplaced(layout, (height, width)))


def misplaced(layout: Layout, size: tuple[int, int]) -> float:
    """Share of positions that change their view when a flattened map is read as the transposed grid."""
    height, width = layout.view_size(*size)
    views = repeat(torch.arange(layout.num_views), "view -> view h w", h=height, w=width)
    right, wrong = merge_views(views, layout), merge_views(views, Layout(layout.cols, layout.rows))
    return float((right.flatten() != wrong.flatten()).double().mean())


def _view(layout: Layout, size: tuple[int, int]) -> tuple[int, int] | None:
    try:
        return layout.view_size(*size)
    except ValueError:
        return None
