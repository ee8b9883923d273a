"""Read a user's own photographs of one object with their cameras: from JSON, or from a COLMAP model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects.camera_files import read_camera_file
from keyorbit.objects.colmap import PINHOLES, Model, read_colmap
from keyorbit.objects.dataset import ObjectViews, as_cameras, check_given_cameras
from keyorbit.objects.framing import middle_square
from keyorbit.objects.paths import photographs
from keyorbit.objects.pictures import LARGEST, load_image, load_stored, to_tensor
from keyorbit.storage.folder_names import name_of


def load_capture(views: Path, cameras: Path, layout: Layout, side: int, picture: Path | None = None) -> ObjectViews:
    """Read the photographs of a folder, in the order of their names, as the views of one object.

    Photographs are upright as a viewer shows them; with COLMAP's cameras they are used as they are stored. Photographs
    that are not square are cropped to their middle square, and the cameras with them. World units are those of the
    cameras.

    Args:
        views: folder of the photographs.
        cameras: a JSON file with ``world_to_camera`` and ``intrinsics`` (to the unit square) of every view, at the top
            level or below ``cameras`` as in an object's meta.json; or a folder with COLMAP's cameras.txt and
            images.txt, or cameras.bin and images.bin, which name the photographs. Text is used where both are there.
        layout: of the model's views.
        side: pixels a side to which all photographs are resized.
        picture: the input picture. Default None: the first photograph.

    Raises:
        InputError: files are missing or damaged, photographs and cameras differ in number or name, the number of views
            is not the layout's, the cameras have distortion, are for pictures of another shape, or look like those of
            another convention.
    """
    paths = photographs(views)
    told = read_colmap(cameras) if cameras.is_dir() else as_cameras(read_camera_file(cameras))
    if len(paths) != layout.num_views:
        raise InputError(
            f"{views} holds {len(paths)} photographs; the model tiles {layout.rows} rows × {layout.cols} columns of "
            f"views, so give exactly {layout.num_views}"
        )
    if isinstance(told, Cameras):
        if len(told) != len(paths):
            raise InputError(f"{cameras} has {len(told)} cameras for the {len(paths)} photographs in {views}")
        rigs, images = told, [load_image(path) for path in paths]
    else:
        rigs, images = _from_colmap(told, cameras, paths)
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


def _from_colmap(model: Model, folder: Path, paths: Sequence[Path]) -> tuple[Cameras, list[Image.Image]]:
    """Read photographs, and return them with their cameras in COLMAP's model, with intrinsics to the unit square."""
    if missing := [path.name for path in paths if path.name not in model]:
        raise InputError(f"the COLMAP model in {folder} does not have {missing[0]}; remove it, or register it")
    poses, inner, images = torch.eye(4).repeat(len(paths), 1, 1), [], []
    for pose, path in zip(poses, paths, strict=True):
        photograph, camera = model[path.name]
        turn = [photograph.qx, photograph.qy, photograph.qz, photograph.qw]
        pose[:3, :3] = torch.from_numpy(Rotation.from_quat(turn).as_matrix())
        pose[:3, 3] = torch.tensor([photograph.tx, photograph.ty, photograph.tz])
        width, height = camera.width, camera.height
        fx, fy, cx, cy = (camera.parameters[i] for i in PINHOLES[camera.model])
        inner.append([[fx / width, 0, cx / width], [0, fy / height, cy / height], [0, 0, 1]])
        # These cameras count the pixels that the files store, whatever their EXIF orientation.
        images.append(load_stored(path, LARGEST))
        _check_size(folder, path, images[-1], (width, height))
    return Cameras(poses, torch.tensor(inner)), images
