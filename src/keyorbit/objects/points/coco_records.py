"""The records of a COCO keypoint file (Lin et al. 2014), as far as anything here reads them."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from keyorbit.objects.points.point import Text

# Programs write the same number in all three ways.
Id = int | float | str
_FURTHEST = 1e9
_Pixel = Annotated[float, Meta(ge=-_FURTHEST, le=_FURTHEST)]
# 0 stands for one that is not known.
_Length = Annotated[float, Meta(ge=0, le=_FURTHEST)]


@dataclass(frozen=True)
class CocoImage:
    """Width and height in pixels, as it was annotated; the file may have been resized since."""

    id: Id
    file_name: Text
    width: _Length | None = None
    height: _Length | None = None

    @property
    def size(self) -> tuple[float, float] | None:
        """Width and height; None where one of them is not known."""
        return (self.width, self.height) if self.width and self.height else None


@dataclass(frozen=True)
class CocoCategory:
    """A kind of object and the names of its keypoints."""

    id: Id | None = None
    name: str = ""
    keypoints: tuple[Text, ...] | None = None


@dataclass(frozen=True)
class CocoAnnotation:
    """x, y and visibility of each keypoint, and x, y, width and height of the box, in pixels.

    The visibility of a keypoint is 0 (not marked), 1 (hidden) or 2 (visible).
    """

    image_id: Id
    id: Id | None = None
    category_id: Id | None = None
    keypoints: tuple[_Pixel, ...] | None = None
    bbox: tuple[_Pixel, _Pixel, _Length, _Length] | None = None
    iscrowd: int | bool | None = None

    @property
    def is_marked(self) -> bool:
        """Whether one of its keypoints is."""
        return any((self.keypoints or ())[2::3])


@dataclass(frozen=True)
class Coco:
    """A file's lists."""

    images: tuple[CocoImage, ...]
    categories: tuple[CocoCategory, ...]
    annotations: tuple[CocoAnnotation, ...]


def id_text(number: Id | None) -> str:
    """Return an id such that 1, 1.0 and "1" are one."""
    return str(int(number) if isinstance(number, float) and number.is_integer() else number)
