"""Split a tiled picture into its views, and merge views into one."""

from dataclasses import dataclass

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How the views are tiled: `rows` × `cols`, counted row by row from the top left.

    Zero123++ has `Layout(3, 2)`; a picture of one view has `Layout(1, 1)`.

    Attributes:
        rows: number of rows, 1 or more.
        cols: number of columns, 1 or more.

    Raises:
        ValueError: a number is below 1.
    """

    rows: int
    cols: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"a layout of {self.rows} rows × {self.cols} columns holds no view: use 1 or more of each")

    @property
    def num_views(self) -> int:
        """Number of views in the grid."""
        return self.rows * self.cols

    @property
    def text(self) -> str:
        """As options and files write it: rows x columns, such as ``3x2``."""
        return f"{self.rows}x{self.cols}"

    def check(self, height: int, width: int) -> None:
        """Raise ValueError when a grid of height × width positions does not divide into whole views."""
        if height % self.rows or width % self.cols:
            raise ValueError(
                f"a grid {height} high and {width} wide does not divide into {self.rows} rows × {self.cols} "
                f"columns of views: take the layout from the model and the size from the latent"
            )

    def view_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size (height, width) of one view in a grid of height × width; ValueError if it does not divide."""
        self.check(height, width)
        return height // self.rows, width // self.cols


def split_views(
    x: Shaped[Tensor, "*lead height width"], rows: int | Layout, cols: int | None = None
) -> Shaped[Tensor, "*lead view view_height view_width"]:
    """Split a grid into its views, row by row from the top left. No value is mixed or changed.

    Args:
        x: [..., height, width], of any type and with any leading axes.
        rows: a Layout, or the number of rows.
        cols: the number of columns if ``rows`` is a number.

    Returns:
        [..., rows·cols, height/rows, width/cols].

    Raises:
        ValueError: the size does not divide.
    """
    layout = _layout(rows, cols)
    layout.check(x.shape[-2], x.shape[-1])
    return rearrange(x, "... (r h) (c w) -> ... (r c) h w", r=layout.rows, c=layout.cols)


def merge_views(
    x: Shaped[Tensor, "*lead view view_height view_width"], rows: int | Layout, cols: int | None = None
) -> Shaped[Tensor, "*lead height width"]:
    """Merge views into one grid: the exact inverse of `split_views`.

    Args:
        x: [..., rows·cols, view height, view width].
        rows: a Layout, or the number of rows.
        cols: the number of columns if ``rows`` is a number.

    Returns:
        [..., rows·view height, cols·view width].

    Raises:
        ValueError: the number of views is not rows·cols.
    """
    layout = _layout(rows, cols)
    if x.shape[-3] != layout.num_views:
        raise ValueError(
            f"{x.shape[-3]} views do not fill {layout.rows} rows × {layout.cols} columns: "
            f"give {layout.num_views} views on the third axis from the end"
        )
    return rearrange(x, "... (r c) h w -> ... (r h) (c w)", r=layout.rows, c=layout.cols)


def grid_size(positions: int, height: int, width: int) -> tuple[int, int]:
    """Return the size (height, width) of the feature map with `positions` positions made from a height × width latent.

    The UNet halves with stride-2 convolutions of padding 1, so that a side n becomes ceil(n/2). A square root would be
    wrong: the 9600 positions of Zero123++ are 120 × 80. Raises ValueError when no number of halvings gives `positions`.
    """
    size = (height, width)
    seen: list[int] = []
    while True:
        count = size[0] * size[1]
        if count == positions:
            return size
        seen.append(count)
        if count <= max(positions, 1):
            break
        size = (-(-size[0] // 2), -(-size[1] // 2))
    raise ValueError(
        f"{positions} positions do not come from a latent {height} high and {width} wide, whose halvings "
        f"have {', '.join(map(str, seen))}: give the latent size of the pass that made the feature map"
    )


def _layout(rows: int | Layout, cols: int | None) -> Layout:
    if isinstance(rows, Layout):
        if cols is not None:
            raise ValueError("columns were given twice: pass a Layout alone, or rows and cols as numbers")
        return rows
    if cols is None:
        raise ValueError("the number of columns is missing: pass a Layout, or rows and cols as numbers")
    return Layout(rows, cols)
