"""Read a user's own photographs of one object with their cameras: from JSON, or from a COLMAP text model."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import ObjectViews, check_given_cameras
from keyorbit.objects.paths import cameras_content, no_cameras, photographs
from keyorbit.objects.pictures import load_image, load_stored, middle_square, to_tensor
from keyorbit.storage.folder_names import name_of

# COLMAP's models without distortion: where fx, fy, cx and cy are among the parameters.
_PINHOLES = {"SIMPLE_PINHOLE": (0, 0, 1, 2), "PINHOLE": (0, 1, 2, 3)}


def load_capture(views: Path, cameras: Path, layout: Layout, side: int, picture: Path | None = None) -> ObjectViews:
    """Read the photographs of a folder, in the order of their names, as the views of one object.

    Photographs are upright as a viewer shows them; with COLMAP's cameras they are used as they are stored. Photographs
    that are not square are cropped to their middle square, and the cameras with them. World units are those of the
    cameras.

    Args:
        views: folder of the photographs.
        cameras: a JSON file with ``world_to_camera`` and ``intrinsics`` (to the unit square) of every view, at the top
            level or below ``cameras`` as in an object's meta.json; or a folder with COLMAP's cameras.txt and
            images.txt, which names the photographs.
        layout: of the model's views.
        side: pixels a side to which all photographs are resized.
        picture: the input picture. Default None: the first photograph.

    Raises:
        InputError: files are missing or damaged, photographs and cameras differ in number or name, the number of views
            is not the layout's, the cameras have distortion, are for pictures of another shape, or look like those of
            another convention.
    """
    paths = photographs(views)
    if cameras.is_dir():
        found = _from_colmap(cameras)
        missing = [path.name for path in paths if path.name not in found]
        if missing:
            raise InputError(f"{cameras / 'images.txt'} does not have {missing[0]}; remove it, or register it")
        rigs = None
    else:
        rigs, found = _from_json(cameras), {}
    if len(paths) != layout.num_views:
        raise InputError(
            f"{views} holds {len(paths)} photographs; the model tiles {layout.rows} rows × {layout.cols} columns of "
            f"views, so give exactly {layout.num_views}"
        )
    if rigs is not None and len(rigs) != len(paths):
        raise InputError(f"{cameras} has {len(rigs)} cameras for the {len(paths)} photographs in {views}")
    # COLMAP's cameras count the pixels that the files store, whatever their EXIF orientation.
    images = [load_stored(path) if rigs is None else load_image(path) for path in paths]
    if rigs is None:
        posed = [found[path.name] for path in paths]
        for path, image, one in zip(paths, images, posed, strict=True):
            _check_size(cameras / "cameras.txt", path, image, one.size)
        rigs = Cameras(torch.stack([one.pose for one in posed]), torch.stack([one.intrinsics for one in posed]))
    check_given_cameras(rigs, cameras, [image.width / image.height for image in images])
    intrinsics = torch.stack([_squared(k, image) for k, image in zip(rigs.intrinsics, images, strict=True)])
    pictures = [to_tensor(_middle(image, side)) for image in images]
    masks = [mask for _, mask in pictures if mask is not None]
    return ObjectViews(
        name_of(views),
        images[0] if picture is None else load_image(picture),
        torch.stack([view for view, _ in pictures]),
        torch.stack(masks) if len(masks) == len(pictures) else None,
        Cameras(rigs.world_to_camera, intrinsics, rigs.orthographic),
    )


def _middle(image: Image.Image, side: int) -> Image.Image:
    cut = image.crop(middle_square(image))
    if cut.mode not in ("RGB", "RGBA"):
        cut = cut.convert("RGBA" if "A" in cut.getbands() or "transparency" in cut.info else "RGB")
    return cut.resize((side, side), Image.Resampling.LANCZOS)


def _squared(intrinsics: Float[Tensor, "3 3"], image: Image.Image) -> Float[Tensor, "3 3"]:
    """Convert intrinsics of the whole picture to those of its middle square; both map to a unit square."""
    left, top, right, _ = middle_square(image)
    short = right - left
    scale = torch.tensor([image.width / short, image.height / short], dtype=intrinsics.dtype)
    square = intrinsics.clone()
    square[:2] *= scale[:, None]
    square[:2, 2] -= torch.tensor([left / short, top / short], dtype=intrinsics.dtype)
    return square


def _from_json(path: Path) -> Cameras:
    content = cameras_content(path)
    try:
        return Cameras.from_dict(content.get("cameras", content) if isinstance(content, dict) else content)
    except (ValueError, RecursionError) as error:
        raise no_cameras(path, error) from error


def _check_size(path: Path, photograph: Path, image: Image.Image, size: tuple[float, float]) -> None:
    """Raise InputError unless the photograph has the shape that its camera is for, at any resolution."""
    width, height = size
    # What rounding to whole pixels leaves, in both.
    slack = sum(0.5 / side for side in (*image.size, width, height))
    if abs(image.width * height / (image.height * width) - 1) > slack:
        raise InputError(
            f"{path} is for pictures of {width:g}x{height:g} pixels, and {photograph.name} has {image.width}x"
            f"{image.height} as stored: give the photographs as COLMAP had them, not cut, padded or turned"
        )


@dataclass(frozen=True, eq=False)
class _Posed:
    """A photograph's pose, its intrinsics to the unit square, and the width and height in pixels of these."""

    pose: Float[Tensor, "4 4"]
    intrinsics: Float[Tensor, "3 3"]
    size: tuple[float, float]


def _from_colmap(folder: Path) -> dict[str, _Posed]:
    """Read COLMAP's cameras, by the name of the photograph."""
    inner: dict[str, tuple[Tensor, tuple[float, float]]] = {}
    for row in _rows(folder / "cameras.txt"):
        try:
            number, model, width, height, *values = row.split()
        except ValueError as error:
            raise InputError(f"{folder / 'cameras.txt'} is damaged at {row[:60]!r}: it is too short") from error
        if model not in _PINHOLES:
            raise InputError(f"{folder / 'cameras.txt'} has a {model} camera; undistort to PINHOLE first")
        try:
            fx, fy, cx, cy = (float(values[i]) for i in _PINHOLES[model])
            sides = float(width), float(height)
            matrix = [[fx / sides[0], 0, cx / sides[0]], [0, fy / sides[1], cy / sides[1]], [0, 0, 1]]
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise InputError(f"{folder / 'cameras.txt'} is damaged at {row[:60]!r}: {error}") from error
        inner[number] = torch.tensor(matrix), sides
    found = {}
    # Every image has two rows; the second lists its points and may be empty.
    for row in _rows(folder / "images.txt", pairs=True):
        try:
            _, w, x, y, z, tx, ty, tz, number, name = row.split(maxsplit=9)
            rotation = Rotation.from_quat([float(x), float(y), float(z), float(w)]).as_matrix()
            rigid = torch.eye(4)
            rigid[:3, :3] = torch.from_numpy(rotation)
            rigid[:3, 3] = torch.tensor([float(tx), float(ty), float(tz)])
            found[name] = _Posed(rigid, *inner[number])
        except (ValueError, KeyError) as error:
            raise InputError(f"{folder / 'images.txt'} is damaged at {row[:60]!r}: {error}") from error
    return found


def _rows(path: Path, pairs: bool = False) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return lines[::2] if pairs else [line for line in lines if line]
