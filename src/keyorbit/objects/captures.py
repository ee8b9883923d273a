"""Read a user's own photographs of one object with their cameras, of any format that camera_files knows."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.lenses import Lens
from keyorbit.geometry.matrices import CameraMatrices
from keyorbit.geometry.views import Layout
from keyorbit.objects.camera_files import read_cameras
from keyorbit.objects.dataset import ObjectViews, as_cameras, check_given_cameras
from keyorbit.objects.framing import middle_square
from keyorbit.objects.paths import left_out, photographs
from keyorbit.objects.pictures import LARGEST, load_image, load_stored, to_tensor
from keyorbit.objects.shots import Shot, Shots, chosen_shots, warn_of_names
from keyorbit.objects.undistorted import is_distorted, undistorted
from keyorbit.storage.folder_names import name_of

log = logging.getLogger(__name__)


def load_capture(views: Path, cameras: Path, layout: Layout, side: int, picture: Path | None = None) -> ObjectViews:
    """Read the photographs of a folder, in the order of their names, as the views of one object.

    With cameras in JSON, photographs are upright as a viewer shows them; COLMAP and NeRF's programs count the pixels
    that files store. Photographs that a lens distorts are undistorted; those that are not square are cropped to their
    middle square, and the cameras with them. World units are those of the cameras.

    Args:
        views: folder of the photographs, or of folders of them.
        cameras: a JSON file with ``world_to_camera`` and ``intrinsics`` (to the unit square) of every view, at the top
            level or below ``cameras`` as in an object's meta.json; or files that name the photographs: a
            ``transforms.json`` of NeRF's, or a COLMAP model's folder; or the folder of a project that holds one.
        layout: of the model's views.
        side: pixels a side to which all photographs are resized.
        picture: the input picture. Default None: the first photograph, as it is.

    Raises:
        InputError: files are missing or damaged, photographs and cameras differ in number or name, the number of views
            is not the layout's, a lens cannot be undone, cameras are for pictures of another shape, or look like those
            of another convention.
    """
    paths = photographs(views)
    if left := left_out(views):
        log.warning("%s: %s", views, left)
    told = read_cameras(cameras)
    if len(paths) != layout.num_views:
        raise InputError(
            f"{views} holds {len(paths)} photographs; the model tiles {layout.rows} rows × {layout.cols} columns of "
            f"views, so give exactly {layout.num_views}"
        )
    lenses = list[Lens]()
    if isinstance(told, CameraMatrices):
        rigs = as_cameras(told)
        if len(rigs) != len(paths):
            raise InputError(f"{cameras} has {len(rigs)} cameras for the {len(paths)} photographs in {views}")
        images = [load_image(path) for path in paths]
        check_given_cameras(rigs, str(cameras), [image.width / image.height for image in images])
    else:
        source, shots, images = _fitting(chosen_shots(told, views, paths), paths)
        warn_of_names(source, shots, paths)
        lenses = _lenses(source, shots, paths, images)
        rigs = _cameras(shots, lenses)
        aspects = [image.width / image.height for image in images]
        check_given_cameras(rigs, source.where, aspects, source.convention)
    intrinsics = torch.stack([_squared(k, image) for k, image in zip(rigs.intrinsics, images, strict=True)])
    squares = _squares(images, lenses, paths, side)
    pictures = [to_tensor(square) for square in squares]
    masks = [mask for _, mask in pictures if mask is not None]
    return ObjectViews(
        name_of(views),
        images[0] if picture is None else load_image(picture),
        torch.stack([view for view, _ in pictures]),
        torch.stack(masks) if len(masks) == len(pictures) else None,
        Cameras(rigs.world_to_camera, intrinsics, rigs.orthographic).to(dtype=torch.float32),
    )


def _squares(
    images: Sequence[Image.Image], lenses: Sequence[Lens], paths: Sequence[Path], side: int
) -> list[Image.Image]:
    """The middle squares, without distortion where lenses are known."""
    squares, bent = list[Image.Image](), 0
    for i, image in enumerate(images):
        if not lenses or not is_distorted(image, lenses[i]):
            squares.append(_middle(image, side))
            continue
        try:
            squares.append(undistorted(image, lenses[i], side))
        except InputError as error:
            raise InputError(f"{paths[i]}: {error}") from error
        bent += 1
    if bent:
        log.info("photographs that were undistorted: %d of %d", bent, len(images))
    return squares


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


def _fitting(
    found: Sequence[tuple[Shots, list[Shot]]], paths: Sequence[Path]
) -> tuple[Shots, list[Shot], list[Image.Image]]:
    """Read photographs, and choose the cameras that are for pictures of their size.

    Projects keep cameras of the photographs and of undistorted copies, under the same names. Some programs turn
    photographs upright before they compute cameras; most count the pixels that files store.

    Raises:
        InputError: no cameras are for pictures of this shape.
    """
    stored = [load_stored(path, LARGEST) for path in paths]
    if (first := _first_that_fits(found, stored)) is not None:
        return *first, stored
    upright = [load_image(path) for path in paths]
    if (first := _first_that_fits(found, upright)) is not None:
        return *first, upright
    source, shots = found[0]
    shot, image, path = next(one for one in zip(shots, stored, paths, strict=True) if not _fits(*one[:2], False))
    wanted = "another shape" if isinstance(shot.lens, str) else f"{shot.lens.width:g}x{shot.lens.height:g} pixels"
    raise InputError(
        f"{source.where} is for pictures of {wanted}, and {path.name} has {image.width}x{image.height} as stored: give "
        "the photographs as they were when the cameras were computed, not cut, padded or turned"
    )


def _first_that_fits(
    found: Sequence[tuple[Shots, list[Shot]]], images: Sequence[Image.Image]
) -> tuple[Shots, list[Shot]] | None:
    """The cameras for pictures of exactly these sizes, or else of their shapes; None if there are none."""
    for exact in (True, False):
        for source, shots in found:
            if all(_fits(shot, image, exact) for shot, image in zip(shots, images, strict=True)):
                return source, shots
    return None


def _fits(shot: Shot, image: Image.Image, exact: bool) -> bool:
    told = shot.lens
    if isinstance(told, str):  # it cannot be used, which is told when it would be
        return True
    return told.fits(*image.size) and (not exact or (told.width, told.height) in ((None, None), image.size))


def _lenses(source: Shots, shots: Sequence[Shot], paths: Sequence[Path], images: Sequence[Image.Image]) -> list[Lens]:
    """Lenses in the pixels of their photographs.

    Raises:
        InputError: one cannot be used, or no camera has such numbers.
    """
    lenses = []
    for shot, path, image in zip(shots, paths, images, strict=True):
        if isinstance(shot.lens, str):
            raise InputError(f"{source.where}: the camera of {path.name} cannot be used: {shot.lens}")
        try:
            lenses.append(shot.lens.at(*image.size))
        except InputError as error:
            raise InputError(f"{source.where}: the camera of {path.name} {error}") from error
    return lenses


def _cameras(shots: Sequence[Shot], lenses: Sequence[Lens]) -> Cameras:
    poses = torch.tensor([shot.world_to_camera for shot in shots], dtype=torch.float64)
    inner = torch.eye(3, dtype=torch.float64).repeat(len(lenses), 1, 1)
    for k, lens in zip(inner, lenses, strict=True):
        k[0, 0], k[1, 1] = lens.fx / lens.width, lens.fy / lens.height
        k[0, 2], k[1, 2] = lens.cx / lens.width, lens.cy / lens.height
    return Cameras(poses, inner)
