"""A point on a picture, and what a picture may be called."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

from msgspec import Meta

# What Label Studio puts before the name of an uploaded file.
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")
Text = Annotated[str, Meta(min_length=1, max_length=1000)]
Share = Annotated[float, Meta(ge=0, le=1)]
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
        hidden: whether the object hides it there.
    """

    picture: Text
    name: Text
    xy: tuple[Share, Share]
    hidden: bool = False


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
