"""Points of a visitor's own: marked on the views of his pictures, and made the keypoints that the app looks for."""

from dataclasses import replace

from PIL import Image

from keyorbit.app.annotating import Annotating
from keyorbit.app.seen import Seen
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.marks import Annotations, Mark


class OwnPoints:
    """The points of one visitor, and the objects on which they are marked; nothing is kept on the disk.

    Attributes:
        work: the marks.
        things: the objects by their names; of each its picture.
    """

    def __init__(self) -> None:
        self.work = Annotating((), (), None, Annotations())
        self.things = dict[str, ObjectViews]()

    def take(self, thing: ObjectViews, seen: Seen) -> None:
        """Turn to an object whose keypoints were found: a new one, or one that is here already.

        An object without marks gives way to it.
        """
        picture, marked = _bare(thing.framed_image), {mark.object for mark in self.work.marks}
        name = next((name for name, known in self.things.items() if _bare(known.framed_image) == picture), None)
        if name is None:
            names = (thing.name if i == 0 else f"{thing.name} {i + 1}" for i in range(len(self.things) + 1))
            name = next(free for free in names if free not in self.things)
        self.things[name] = replace(thing, name=name)
        for other in [other for other in self.things if other not in (name, *marked)]:
            del self.things[other]
        self.work.take(replace(seen, name=name, _placed={}), tuple(self.things))

    @property
    def marked(self) -> list[ObjectViews]:
        """The objects that have marks."""
        marked = {mark.object for mark in self.work.marks}
        return [thing for name, thing in self.things.items() if name in marked]

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The marks as ``keyorbit mark --points`` reads them: of a single object they name none, whatever its file."""
        only = len(self.marked) == 1
        return tuple(replace(mark, object="") if only else mark for mark in self.work.marks)


def _bare(picture: Image.Image) -> Image.Image:
    """The pixels alone, without what a file says of them."""
    return picture.convert("RGBA")
