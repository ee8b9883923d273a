"""What a visitor may send to each endpoint of the app: the types that the door checks before Gradio sees a call."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from keyorbit.errors import InputError
from keyorbit.objects.background import Background
from keyorbit.values import Amount, Share

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
CHAIRS, FOLDER = "The eight chairs that come with keyorbit", "A folder of my own pictures"
# Of these the tiny model makes something else from their one picture, see docs/tiny-model.md; their true views serve.
_NOT_TO_TRY = ("chair_2_00000", "chair_2_00004")
# The first is that of the README's first lines; of the last, the tokens that come along are not sure.
_FIRST, _LAST = "chair_2_00003", "chair_2_00001"
# Of one discovery: smallest and largest.
KEYPOINTS, STEPS = (4, 32), (10, 1000)
_FILES = 1000
# Of a session or a call.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,100}$")]


@cache
def example_pictures() -> tuple[Path, ...]:
    """Return the pictures that visitors may try, the best first."""
    folders = sorted(folder for folder in EXAMPLES.iterdir() if folder.is_dir() and folder.name not in _NOT_TO_TRY)
    folders.sort(key=lambda folder: (folder.name != _FIRST, folder.name == _LAST))
    return tuple(folder / "cond.png" for folder in folders)


@dataclass(frozen=True)
class Kind:
    """What marks a table of Gradio as a file."""

    _type: Literal["gradio.FileData"]


@dataclass(frozen=True)
class Upload:
    """A file that was uploaded before.

    Attributes:
        path: where the server put it, as it answered to the upload.
        meta: what marks it as a file.
    """

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    meta: Kind


@dataclass(frozen=True)
class Find:
    """Keypoints of a picture.

    Attributes:
        picture: None for none yet, which is answered by a sentence.
        background: whether the object is cut out of it. Default None: ``auto``.
        mask: white on the object. Default None: the object is looked for.
    """

    picture: Upload | None
    background: Background | None = None
    mask: Upload | None = None


@dataclass(frozen=True)
class Source:
    """Which objects a discovery is of."""

    source: Literal["The eight chairs that come with keyorbit", "A folder of my own pictures"]


@dataclass(frozen=True)
class Discover:
    """A discovery.

    Attributes:
        source: which objects.
        folder: the pictures, for objects of a visitor's own; ignored otherwise.
        count: number of keypoints, from 4 to 32.
        steps: the most steps, from 10 to 1000.
    """

    source: Literal["The eight chairs that come with keyorbit", "A folder of my own pictures"]
    folder: Annotated[tuple[Upload, ...], Meta(max_length=_FILES)] | None
    # Gradio's clients send whole numbers as 12 or as 12.0.
    count: Annotated[float, Meta(ge=KEYPOINTS[0], le=KEYPOINTS[1], multiple_of=1)]
    steps: Annotated[float, Meta(ge=STEPS[0], le=STEPS[1], multiple_of=1)]


@dataclass(frozen=True)
class Attention:
    """A token's attention. ``token``: from 0 on; the tokens in use may be fewer than the largest that is allowed."""

    picture: Upload | None
    token: Annotated[float, Meta(ge=0, le=KEYPOINTS[1] - 1, multiple_of=1)] | None


@dataclass(frozen=True)
class Example:
    """A picture that comes with keyorbit, by its place in the row of examples."""

    example: Amount

    def __post_init__(self) -> None:
        if self.example >= len(example_pictures()):
            raise InputError(f"there are examples 0 to {len(example_pictures()) - 1}, and no {self.example}")


@dataclass(frozen=True)
class Stop:
    """The end of the visitor's own discovery; the session says which."""


@dataclass(frozen=True)
class Step:
    """A step of an annotator.

    Attributes:
        kind: what is done.
        revision: number of the state that the page shows.
        point: number of the point; for ``place``, ``drop``, ``absent`` and ``rename``.
        view: number of the view; None for the input picture.
        x: of a place in the view's unit square; for ``place`` and ``create``.
        y: of that place.
        name: of a point or of an object; for ``add``, ``rename`` and ``show``.
    """

    kind: Literal["place", "create", "drop", "absent", "add", "rename", "accept", "skip", "undo", "show", "clear"]
    revision: Amount
    point: Amount | None = None
    view: Amount | None = None
    x: Share | None = None
    y: Share | None = None
    name: Annotated[str, Meta(max_length=1000)] | None = None


@dataclass(frozen=True)
class Watch:
    """How far the model's work in the background is, or the annotations as files."""


@dataclass(frozen=True)
class Own:
    """The visitor's own points: to mark them on the last views, to make keypoints of them, or to do without them."""


# By the names of the endpoints; the tabs' modules and `annotate_page.py` register them.
INPUTS: dict[str, type] = {
    "find": Find,
    "dropped": Find,
    "corrected": Find,
    "example": Example,
    "source": Source,
    "discover": Discover,
    "stop": Stop,
    "attention": Attention,
    "attention_example": Example,
    "step": Step,
    "watch": Watch,
    "export": Watch,
    "board": Watch,
    "begin": Own,
    "fit": Own,
    "back": Own,
}


@dataclass(frozen=True)
class Call:
    """What all calls have in common. Other fields that Gradio's clients send are not handed on.

    Attributes:
        data: one value for each input, in their order.
        fn_index: number of the endpoint. Default None: the address names it.
        session_hash: the visitor, under a random name that the page chose. Default None: a visitor of this one call.
        trigger_id: of the component that was touched. Default None.
    """

    data: Annotated[tuple[Any, ...], Meta(max_length=100)]
    fn_index: Amount | None = None
    session_hash: Name | None = None
    trigger_id: Amount | None = None


@dataclass(frozen=True)
class Cancel:
    """The end of one of the visitor's own calls; fields as in :class:`Call`, and the name that it was given."""

    session_hash: Name
    fn_index: Amount
    event_id: Name


@dataclass(frozen=True)
class Reset:
    """What older clients send; nothing happens."""

    event_id: Name
