"""A point on a picture, and what a picture may be called."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.values import Finite

# What Label Studio puts before the name of an uploaded file.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
Text = Annotated[str, Meta(min_length=1, max_length=1000)]
Pixels = Annotated[float, Meta(gt=0, le=1e9)]
# Tools round: so far beyond the picture's edge, in its sides, a place is on the edge.
_ROUNDING = 0.01


@dataclass(frozen=True)
class PicturePoint:
    """A point that somebody marked on a picture.

    Attributes:
        picture: the picture's name, as the tool tells it.
        name: of the point.
        xy: in the picture's unit square, x right, y down.
        hidden: whether the object hides it there. Default False.
        size: width and height of the picture as it was annotated, pixels. Default None: the tool does not tell.
        in_pixels: whether ``xy`` counts pixels from the picture's corner, as its size is not known. Default False.

    Raises:
        InputError: ``xy`` is outside the unit square, and not in pixels.
    """

    picture: Text
    name: Text
    xy: tuple[Finite, Finite]
    hidden: bool = False
    size: tuple[Pixels, Pixels] | None = None
    in_pixels: bool = False

    def __post_init__(self) -> None:
        if not self.in_pixels and not all(0 <= share <= 1 for share in self.xy):
            raise InputError(f"xy is outside the picture, at ({self.xy[0]:g}, {self.xy[1]:g}) of its sides")


def on_edge(share: float) -> float:
    """The share, or that of the picture's edge where it is beyond it by no more than tools round."""
    return min(max(share, 0.0), 1.0) if -_ROUNDING <= share <= 1 + _ROUNDING else share


def plain_names(picture: str) -> Iterator[str]:
    """Yield what a picture may be called by the name that a tool tells, the likeliest first, without and with suffix.

    The name may be a place on another machine, an address, or have the prefix that Label Studio gives to uploads. With
    the folder that it lies in come first.
    """
    plain = picture.replace("\\", "/")
    plain = plain.partition("?d=")[2] or plain.partition("?")[0]
    parts = [part for part in unquote(plain).split("/") if part] or [picture]
    for last in dict.fromkeys((parts[-1], _UPLOAD.sub("", parts[-1]))):
        stem = last.rpartition(".")[0] or last
        if len(parts) > 1:
            yield f"{parts[-2]}/{stem}"
        yield from (stem, last)
