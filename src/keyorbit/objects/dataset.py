"""Objects on disk: an input picture, its views if they are known, and ground truth if there is any.

A dataset folder has one sub-folder for each object with ``cond.png``, ``grid.png`` (or ``view_0.png`` …) and
``meta.json``. A plain folder of pictures, or one picture, works as well: the model then generates the views.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.geometry.camera_checks import check_cameras
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.matrices import OURS, CameraMatrices, Convention
from keyorbit.geometry.views import Layout, split_views
from keyorbit.objects.background import Background
from keyorbit.objects.cutout import CutOut, check_mask_size, cut_out
from keyorbit.objects.description import Description, Symmetry, description_in, read_description
from keyorbit.objects.framing import Framing, cut, frame, has_no_background, is_transparent
from keyorbit.objects.mesh import PlacedMesh
from keyorbit.objects.paths import mask_files
from keyorbit.objects.pictures import (
    LARGEST,
    Source,
    as_shown,
    decoded_photograph,
    load_photograph,
    load_silhouette,
    on_grey,
    reduced,
    reduced_size,
    to_tensor,
)
from keyorbit.objects.shards.names import is_object, mesh_in, picture_in
from keyorbit.objects.sources import ObjectSource, object_sources
from keyorbit.results import number_of, told
from keyorbit.storage.folder_names import name_of, readable
from keyorbit.storage.outputs import OBJECT, replaced_folder
from keyorbit.values import as_path, check_kind, from_values

FORMAT = "keyorbit-object-1"
# Pixels of one of several views, which are all in memory as floats, four times as large.
_LARGEST_VIEW = LARGEST // 4
log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Truth:
    """Ground truth of an object's landmarks. The axis ``all_views`` has the input view first, then any annotated views.

    Attributes:
        names: name of each landmark.
        pairs: left/right twins, by index.
        keypoints_3d: in the cameras' world; None if only pictures were annotated.
        known: False for a landmark that this object lacks.
        keypoints_2d: in the unit square of each view.
        visible: True where a view sees the landmark.
        boxes: width and height of the object's box in each view, in sides of the view. None if not annotated.
        surface: points distributed uniformly over the object's surface, world units. None if not known.
    """

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    keypoints_3d: Float[Tensor, "landmark 3"] | None
    known: Bool[Tensor, " landmark"]
    keypoints_2d: Float[Tensor, "all_views landmark 2"]
    visible: Bool[Tensor, "all_views landmark"]
    boxes: Float[Tensor, "all_views 2"] | None = None
    surface: Float[Tensor, "point 3"] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class ObjectViews:
    """One object: an input picture, and what is known of it.

    Attributes:
        name: name of the object.
        input_image: the input picture as a viewer shows it: upright by its EXIF orientation, 8 bits a channel. It is
            converted when the object is made (:func:`keyorbit.objects.pictures.as_shown`).
        views: values 0…1, transparency on grey. None: the model generates the views from the input picture.
        masks: True on the object, from the alpha channel. None if there is none.
        cameras: of the views. None: the model's own.
        caption: a description; default empty.
        truth: ground truth; None if there is none.
        input_elevation_deg: elevation of the input picture's camera, −90…90 degrees; None if not known.
        symmetry: how many turns about the vertical bring the object onto itself, or "round". Default 1: none but a
            whole one.
        recentre: whether an object that is small or off-centre in the input picture is brought to its middle before a
            model of several views is shown it (:mod:`keyorbit.objects.framing`).
        background: what is done with the input picture's background before a model is shown it. ``auto`` (default): for
            a model of several views, the object is cut out of a photograph, that is a picture without views or truth
            whose object is not known by an alpha channel or a plain background. ``remove``: the object is cut out for
            every model, unless the picture has an alpha channel. ``keep``: never.
        mask: of the object in the input picture, which is then cut out by it, whatever ``background`` says; mode L, of
            that picture's size. Default None: it is looked for (:mod:`keyorbit.objects.cutout`).
        mesh: that the object was rendered from. Default None: it was not, or that is not known.
        source: the file of the input picture. Default None: it is from none.

    Raises:
        InputError: the mask has another size than the picture, or a field is of another kind.
    """

    name: str
    input_image: Image.Image
    views: Float[Tensor, "view 3 height width"] | None = None
    masks: Bool[Tensor, "view height width"] | None = None
    cameras: Cameras | None = None
    caption: str = ""
    truth: Truth | None = None
    input_elevation_deg: float | None = None
    recentre: bool = True
    symmetry: Symmetry = 1
    background: Background = "auto"
    mask: Image.Image | None = None
    mesh: PlacedMesh | None = None
    source: Source | None = None

    def __post_init__(self) -> None:
        check_kind("name", self.name, str, "a text")
        check_kind("input_image", self.input_image, Image.Image, "a Pillow image, such as PIL.Image.open reads")
        check_kind("views", self.views, Tensor | None, "a tensor [view 3 height width] of 0…1")
        if self.views is not None and (self.views.ndim != 4 or self.views.shape[1] != 3):
            raise InputError(
                f"the views of {self.name} have shape {list(self.views.shape)}; they are a tensor [view 3 height width]"
            )
        object.__setattr__(self, "input_image", as_shown(self.input_image))
        if self.mask is not None:
            check_mask_size(self.mask, self.input_image, f"the mask of {self.name}", "its picture")

    def __repr__(self) -> str:
        picture = self.input_image
        known = [] if self.views is None else [number_of(len(self.views), "view")]
        known += [] if self.cameras is None else ["with cameras"]
        known += [] if self.truth is None else [number_of(len(self.truth.names), "true landmark")]
        return told("ObjectViews", (repr(self.name), f"{picture.width}x{picture.height} {picture.mode}", *known))

    def without_pictures(self) -> "ObjectViews":
        """The same for its truth alone: without pictures, which take most of the memory."""
        return replace(self, input_image=Image.new("RGB", (1, 1)), views=None, masks=None, mask=None)

    @cached_property
    def cut_out(self) -> CutOut | None:
        """The object without its background; None where the background is kept.

        Raises:
            InputError: it is to be removed, and neither rembg nor OpenCV can be used.
        """
        if self.mask is None:
            if self.background == "keep":
                return None
            if self.background == "remove" and is_transparent(self.input_image):
                return None
            known = self.views is not None or self.truth is not None
            if self.background == "auto" and (known or has_no_background(self.input_image)):
                return None
        return cut_out(on_grey(self.input_image), self.mask, self.name, self.background == "remove")

    def shown_image(self, several: bool = True) -> Image.Image:
        """The input picture as a model reads it, before its square is cut: without its background, or as it is.

        Args:
            several: whether the model has several views. Those of a single view are trained on photographs, so ``auto``
                leaves the background. Default True.
        """
        asked = several or self.mask is not None or self.background == "remove"
        found = self.cut_out if asked else None
        return self.input_image if found is None else found.image

    @cached_property
    def framing(self) -> Framing:
        """Which square of the input picture a model of several views is shown.

        Raises:
            InputError: the picture is transparent everywhere.
        """
        name = f"the input picture of {self.name}"
        framing = frame(self.shown_image(), self.recentre, name, self.views is not None)
        return framing if self.cut_out is None else replace(framing, cut_out_by=self.cut_out.by)

    @property
    def framed_image(self) -> Image.Image:
        """What a model of several views is shown: the input picture itself, or that square of it.

        Raises:
            InputError: the picture is transparent everywhere.
        """
        how = self.framing
        return cut(self.shown_image(), how.seen, how.ground) if how.recentred else self.shown_image()


# An object by its number, cut out or mirrored in another way with other random numbers.
Draw = Callable[[int, torch.Generator], ObjectViews]


class ObjectDataset:
    """A sequence of objects, each read or rendered on access by ``make(i)``.

    Where a data set's published code moves or mirrors pictures at random, ``draw(i, generator)`` makes such an object.
    It can be pickled, for the workers of a ``DataLoader``, where ``make`` and ``draw`` can.
    """

    def __init__(self, count: int, make: Callable[[int], ObjectViews], draw: Draw | None = None) -> None:
        self._count, self._make, self._draw = count, make, draw

    def __repr__(self) -> str:
        return told("ObjectDataset", (number_of(len(self), "object"),))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> ObjectViews: ...
    @overload
    def __getitem__(self, index: slice) -> "ObjectDataset": ...
    def __getitem__(self, index: int | slice) -> "ObjectViews | ObjectDataset":
        chosen = range(self._count)[index]
        if isinstance(chosen, range):
            drawn = None if self._draw is None else partial(_numbered, self._draw, chosen)
            return ObjectDataset(len(chosen), partial(_numbered, self._make, chosen), drawn)
        return self._make(chosen)

    def __iter__(self) -> Iterator[ObjectViews]:
        return (self._make(i) for i in range(self._count))

    def drawn(self, index: int, generator: torch.Generator) -> ObjectViews:
        """The object as it is drawn for one use; where nothing is drawn, as it is."""
        return self._make(index) if self._draw is None else self._draw(index, generator)


def _numbered(make: Callable[..., ObjectViews], numbers: range, i: int, *more: torch.Generator) -> ObjectViews:
    return make(numbers[i], *more)


Objects = Sequence[ObjectViews] | ObjectDataset


def changed(objects: Objects, change: Callable[[ObjectViews], ObjectViews]) -> ObjectDataset:
    """The same objects, with a change to each when it is read; nothing is drawn."""
    return ObjectDataset(len(objects), lambda i: change(objects[i]))


def drawn(objects: Objects, index: int, generator: torch.Generator) -> ObjectViews:
    """:meth:`ObjectDataset.drawn`; of other sequences, the object as it is."""
    return objects.drawn(index, generator) if isinstance(objects, ObjectDataset) else objects[index]


def load_dataset(
    path: str | Path, background: Background = "auto", mask: str | Path | Mapping[Path, Path] | None = None
) -> ObjectDataset:
    """Read the objects of a dataset folder or of shards, the pictures of a plain folder, one object folder or picture.

    They are sorted by name. The name of a picture is that of its file without the suffix, or with the suffix where two
    pictures would have the same name.

    Args:
        path: the folder or picture; shards, a folder or a pattern of such (:mod:`keyorbit.objects.shards`); or an
            address that fsspec knows, such as ``s3://bucket/x-*.tar``.
        background: what is done with the pictures' backgrounds; see :class:`ObjectViews`. Default ``auto``.
        mask: the mask of the only object, or a folder of masks, or the masks by the paths of their objects
            (:func:`keyorbit.objects.paths.mask_files`). Default None: none.

    Raises:
        InputError: the path holds neither objects nor pictures; or masks are missing, cannot be read, mark nothing or
            everything, or have another size than their pictures.
    """
    path = as_path(path)
    sources = object_sources([path])
    places = [source.path for source in sources]
    masks = mask_files(Path(mask), places) if isinstance(mask, str | Path) else mask or {}
    read = partial(_read_at, sources, background, masks)
    if path.is_file() and not sources[0].elsewhere:
        # A damaged picture is reported here, not when the object is read.
        return ObjectDataset(1, partial(_copy_of, read(0)))
    return ObjectDataset(len(sources), read)


def _read_at(
    sources: Sequence[ObjectSource], background: Background, masks: Mapping[Path, Path], i: int
) -> ObjectViews:
    return read_source(sources[i], background, masks.get(sources[i].path))


def _copy_of(thing: ObjectViews, _: int) -> ObjectViews:
    return replace(thing, input_image=thing.input_image.copy())


def read_source(
    source: ObjectSource, background: Background = "auto", mask: Path | None = None, recentre: bool = True
) -> ObjectViews:
    """Read one object; see :class:`ObjectViews` for ``background`` and ``recentre``, and ``mask`` is a file.

    Raises:
        InputError: a file is missing or damaged, or the files contradict each other.
    """
    place = source.path
    if source.elsewhere:
        thing = object_in(source.files(), source.name, source.where)
    elif place.is_dir():
        thing = load_object(place)
    else:
        image, file = load_photograph(place)
        thing = ObjectViews(source.name, image, source=file)
    return _with_mask(replace(thing, background=background, recentre=recentre), mask, place)


def object_in(files: Mapping[str, bytes], name: str, where: str) -> ObjectViews:
    """Put together an object, or a picture alone, of files in memory.

    Args:
        files: by their names, such as ``cond.png`` and ``meta.json``, or ``jpg``.
        name: of the object.
        where: names it in errors.

    Raises:
        InputError: they are a mesh, none of these, damaged, or contradict each other.
    """
    if is_object(files):
        return _object_of(_Bytes({file.lower(): data for file, data in files.items()}, where), name)
    if mesh_in(files) is not None:
        raise InputError(f"{where} is a mesh: 'keyorbit dataset render' makes an object of it")
    picture = picture_in(files)
    if picture is None:
        raise InputError(f"{where} holds no picture")
    image, source = decoded_photograph(files[picture], where)
    return ObjectViews(name, image, source=source)


def _with_mask(thing: ObjectViews, mask: Path | None, place: Path) -> ObjectViews:
    if mask is None:
        return thing
    read = load_silhouette(mask, str(mask), str(place))
    check_mask_size(read, thing.input_image, str(mask), str(place))
    return replace(thing, mask=read)


def load_object(folder: Path) -> ObjectViews:
    """Read one object folder.

    Raises:
        InputError: a file is missing or damaged, or the files contradict each other.
    """
    return _object_of(_Folder(folder), name_of(folder))


@dataclass(frozen=True)
class _Folder:
    """The files of an object folder on the disk."""

    folder: Path

    @property
    def where(self) -> str:
        return str(self.folder)

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def described(self) -> Description:
        return read_description(self.folder)

    def photograph(self, name: str, largest: int | None) -> tuple[Image.Image, Source]:
        return load_photograph(self.folder / name, largest)


@dataclass(frozen=True)
class _Bytes:
    """The same files in memory. ``where`` names the object in errors."""

    files: Mapping[str, bytes]
    where: str

    def has(self, name: str) -> bool:
        return name in self.files

    def described(self) -> Description:
        return description_in(self.files["meta.json"], f"{self.where}/meta.json")

    def photograph(self, name: str, largest: int | None) -> tuple[Image.Image, Source]:
        if name not in self.files:
            raise InputError(f"there is no picture at {self.where}/{name}")
        return decoded_photograph(self.files[name], f"{self.where}/{name}", largest)


def _object_of(files: _Folder | _Bytes, name: str) -> ObjectViews:
    told = files.described()
    views, masks = _views(files, Layout(*told.layout))
    picture, source = files.photograph("cond.png", LARGEST)
    return described_object(told, name, picture, views, masks, files.where, source)


def described_object(
    told: Description,
    name: str,
    picture: Image.Image,
    views: Float[Tensor, "view 3 height width"],
    masks: Bool[Tensor, "view height width"] | None,
    where: str,
    source: Source | None = None,
) -> ObjectViews:
    """Put pictures and what is told of them together. ``where`` names them in errors.

    Raises:
        InputError: they contradict each other.
    """
    cameras = None if told.cameras is None else as_cameras(told.cameras)
    if cameras is not None and len(cameras) != len(views):
        raise InputError(f"{where} has {len(views)} views but {len(cameras)} cameras")
    file = f"{where}/meta.json"
    if cameras is not None:
        check_given_cameras(cameras, file, [views.shape[-1] / views.shape[-2]] * len(views))
        cameras = cameras.to(dtype=torch.float32)
    truth, caption = _truth(told, cameras, file), readable(told.caption or "")
    elevation, symmetry = told.input_elevation_deg, told.symmetry
    return ObjectViews(
        name, picture, views, masks, cameras, caption, truth, elevation, symmetry=symmetry, source=source
    )


def as_cameras(matrices: CameraMatrices) -> Cameras:
    """Return the cameras whose numbers a file holds, in double precision."""
    poses, inner = (torch.tensor(rows, dtype=torch.float64) for rows in (matrices.world_to_camera, matrices.intrinsics))
    return Cameras(poses, inner, matrices.orthographic)


def check_given_cameras(cameras: Cameras, where: str, aspects: Sequence[float], convention: Convention = OURS) -> None:
    """Check cameras from the file that ``where`` names. ``aspects`` are width over height of the pictures.

    Raises:
        InputError: as :func:`keyorbit.geometry.camera_checks.check_cameras`, with the name of the file.
    """
    try:
        check_cameras(cameras, torch.tensor(aspects), convention)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def write_object(
    folder: Path,
    input_image: Image.Image,
    grid: Image.Image,
    layout: Layout,
    meta: dict[str, Any],
    overwrite: bool = False,
    beside: Mapping[str, Image.Image] | None = None,
) -> None:
    """Write one object folder, all of it or nothing. The format and the layout are added to ``meta``.

    ``beside`` are further pictures by the names of their files, which nothing here reads. Default None: there are none.

    Raises:
        InputError: there is an object already and ``overwrite`` is False, or as
            :func:`keyorbit.storage.outputs.replaced_folder`.
    """
    with replaced_folder(folder, OBJECT, overwrite) as partial:
        input_image.save(partial / "cond.png")
        grid.save(partial / "grid.png")
        for name, picture in (beside or {}).items():
            picture.save(partial / name)
        content = {"format": FORMAT, "layout": [layout.rows, layout.cols], **meta}
        (partial / "meta.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def stack_truths(objects: Iterable[ObjectViews]) -> list[Truth]:
    """Return the ground truth of objects that all have some.

    Raises:
        InputError: an object has none, or they differ in the number of landmarks.
    """
    truths: list[Truth] = []
    for thing in objects:
        if thing.truth is None:
            raise InputError(f"{thing.name} has no ground truth (keypoints_3d or keypoints_2d in its meta.json)")
        truths.append(thing.truth)
        if (count := len(thing.truth.names)) != (first := len(truths[0].names)):
            raise InputError(f"{thing.name} has {count} landmarks, and others have {first}: all need the same ones")
    return truths


def _views(files: _Folder | _Bytes, layout: Layout) -> tuple[Tensor, Tensor | None]:
    """Return the views and, if all have one, their silhouettes; at a reduced size where files are too large."""
    if files.has("grid.png"):
        image, _ = files.photograph("grid.png", None)
        try:
            layout.check(image.height, image.width)
        except ValueError as error:
            raise InputError(f"{Path(files.where) / 'grid.png'}: {error}") from error
        size = reduced_size(image.size, LARGEST)
        if size is None:
            picture, mask = to_tensor(image)
            return split_views(picture, layout).movedim(1, 0), None if mask is None else split_views(mask, layout)
        pairs = [to_tensor(view) for view in _cut(image, layout, size)]
    else:
        names = (f"view_{i}.png" for i in range(layout.num_views))
        pairs = [to_tensor(files.photograph(name, _LARGEST_VIEW)[0]) for name in names]
    if len({picture.shape for picture, _ in pairs}) > 1:
        raise InputError(f"the views in {files.where} differ in size")
    masks = [mask for _, mask in pairs if mask is not None]
    return torch.stack([picture for picture, _ in pairs]), torch.stack(masks) if len(masks) == len(pairs) else None


def _cut(image: Image.Image, layout: Layout, size: tuple[int, int]) -> Iterator[Image.Image]:
    """Yield the views of a grid that would be reduced to ``size``, each reduced by itself so that none are mixed."""
    height, width = layout.view_size(image.height, image.width)
    smaller = max(1, size[0] // layout.cols), max(1, size[1] // layout.rows)
    for i in range(layout.num_views):
        top, left = i // layout.cols * height, i % layout.cols * width
        yield reduced(image.crop((left, top, left + width, top + height)), smaller)


def _truth(told: Description, cameras: Cameras | None, where: str) -> Truth | None:
    """Return the ground truth of a description; None if it has none.

    Where it has points in space only, they are projected into the views, and into the input view if its camera is
    known; else no landmark counts there. Whether something hides a landmark is not known then: it counts as seen where
    it is in the picture. ``where`` names the file.
    """
    if told.known is None or (told.keypoints_2d is None and not told.keypoints_3d):
        return None
    known = torch.tensor(told.known, dtype=torch.bool)
    points = None
    if told.keypoints_3d is not None:
        unknown = (float("nan"),) * 3
        points = torch.tensor([point or unknown for point in told.keypoints_3d], dtype=torch.float32)
        points = torch.where(known[:, None], points, points.nan_to_num(0.0, 0.0, 0.0))
    if told.keypoints_2d is not None:
        nowhere = (float("nan"),) * 2
        flat = torch.tensor([[place or nowhere for place in row] for row in told.keypoints_2d], dtype=torch.float32)
        visible = torch.tensor(told.visible, dtype=torch.bool)
    elif points is not None:
        flat, visible = _seen(told, points, known, cameras, where)
    boxes, surface = (
        None if values is None else torch.tensor(values, dtype=torch.float32) for values in (told.boxes, told.surface)
    )
    names = tuple(readable(str(name)) for name in told.keypoint_names or ())
    boxes = None if boxes is None else boxes[: len(flat)]
    return Truth(names, told.pairs or (), points, known, flat, visible, boxes, surface)


def _seen(
    told: Description, points: Tensor, known: Tensor, cameras: Cameras | None, where: str
) -> tuple[Float[Tensor, "all_views landmark 2"], Bool[Tensor, "all_views landmark"]]:
    """Places in the input view and the other views, and which of them are in the picture."""
    count = len(points)
    flat, visible = torch.zeros(1, count, 2), torch.zeros(1, count, dtype=torch.bool)
    if told.input_camera is not None:
        matrices = from_values(CameraMatrices, told.input_camera, f"{where}: input_camera", others=True)
        if len(matrices.intrinsics) != 1:
            raise InputError(f"{where}: input_camera has {len(matrices.intrinsics)} views; it must have one")
        flat, visible = _projected(as_cameras(matrices), points)
    if cameras is not None:
        there, shown = _projected(cameras, points)
        flat, visible = torch.cat([flat, there]), torch.cat([visible, shown])
        lost = int((known & ~shown.any(0)).sum())
        if 2 * lost > int(known.sum()):
            raise InputError(
                f"{where}: {lost} of {int(known.sum())} keypoints_3d are outside of every view; they must be in the "
                "world of the cameras, in its axes and unit"
            )
        for name, rows in (("visible", told.visible), ("boxes", told.boxes)):
            if rows is not None and len(rows) != len(flat):
                raise InputError(
                    f"{where}: {name} has {len(rows)} entries for the input view and the {len(cameras)} views"
                )
    if told.visible is not None:
        visible = visible & torch.tensor(told.visible, dtype=torch.bool)[: len(flat)]
    return flat, visible & known


def _projected(cameras: Cameras, points: Tensor) -> tuple[Tensor, Tensor]:
    xy, before = cameras.to(dtype=torch.float32).project(points), cameras.to(dtype=torch.float32).depth(points) > 0
    return xy, ((xy >= 0) & (xy <= 1)).all(-1) & (before | cameras.orthographic)
