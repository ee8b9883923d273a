"""Check that cameras from outside are OpenCV's world-to-camera, with intrinsics that map to the unit square.

Other conventions are as common, and none of them fails by itself: the results are wrong without any error. So the check
recognises each convention by what it does to cameras that look at one object, and names it.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import search_volume
from keyorbit.geometry.matrices import OURS, Convention

# How far the columns of a rotation may be from unit length and right angles: matrices are often rounded to two digits.
_RIGID = 0.02
# No camera has a principal point this many sides from the corner of every view, or a field of view of less than 1° or
# more than 170°.
_FAR_OUT = 1.5
_FOCAL = (0.044, 57.3)
_ALIKE = 0.3
# A principal point that is the same multiple of the middle in all views (within the first share), and that differs from
# it (by more than the second share), is in the unit of another picture size. In cropped pictures it may be anywhere.
_SIZED, _RESIZED = 0.05, 0.15
# Of skew, in focal lengths: what calibrations find is a thousandth.
_SKEW = 0.1
# Pixels are as wide as high, within this share.
_SQUARE = 0.1
# How far outside a view, in sides, the point may be at which all cameras look: a camera in the hand is not aimed well.
_BESIDE = 0.5
# Another convention is correct if it brings that point much nearer to the middle of the views: to this share, less so
# many sides.
_BETTER, _CLEARLY = 0.5, 0.05
# Cameras that are nearer to each other than this share of their distance from the object count as at one point.
_APART = 1e-3
# Times that cameras may be further from the origin than from each other: beyond, single precision rounds poses by a
# thousandth of a view.
_FROM_ORIGIN = 1e4


def check_cameras(
    cameras: Cameras, aspect: Float[Tensor, " view"] | None = None, convention: Convention = OURS
) -> None:
    """Raise an error that names what is wrong with cameras, if anything is.

    Cameras of one object pass if they look roughly at it, from any side, in world units of any size.

    Args:
        aspect: width divided by height of each view's picture, in pixels. Default None: the pictures are not known.
        convention: how the poses were read, for the message. Default: as they are.

    Raises:
        ValueError: there are no cameras; a matrix is not finite, not rigid or is transposed; intrinsics are in pixels,
            for −1…1, or for a picture of another shape; poses are camera-to-world or in OpenGL's axes; or the cameras
            do not look at one point, or are too far from the origin for single precision. The message names the
            convention that it looks like, and the expected one.
    """
    # Every check reads the values; poses far from the origin are right in double precision only.
    cameras = cameras.to("cpu").to(dtype=torch.float64)
    aspect = None if aspect is None else aspect.cpu()
    complaint = _matrices(cameras) or _intrinsics(cameras, aspect) or _poses(cameras, convention) or _far(cameras)
    if complaint:
        words = complaint.replace(OURS.matrices, convention.matrices)
        raise ValueError(f"{words}; {convention.expected}")


def _matrices(cameras: Cameras) -> str | None:
    """Return what is wrong with single matrices, or None."""
    poses, inner = cameras.world_to_camera, cameras.intrinsics
    if not len(poses):
        return "there are no cameras"
    if not (poses.isfinite().all() and inner.isfinite().all()):
        return "the cameras hold numbers that are not finite"
    last = poses.new_tensor([0.0, 0, 0, 1])
    if not torch.allclose(poses[:, 3], last.expand(len(poses), 4), atol=1e-4):
        if torch.allclose(poses[:, :, 3], last.expand(len(poses), 4), atol=1e-4):
            return "world_to_camera looks transposed (the translation stands in the last row): transpose each matrix"
        return "the last row of world_to_camera is not 0 0 0 1"
    axes = poses[:, :3, :3].double()
    gram = axes @ axes.mT
    size = gram.diagonal(dim1=1, dim2=2).mean(1)
    if not torch.allclose(gram, torch.eye(3).to(gram) * size[:, None, None], atol=2 * _RIGID * float(size.max())):
        return "world_to_camera is not rigid: the first three columns are no rotation"
    if ((size.sqrt() - 1).abs() > _RIGID).any():
        return f"world_to_camera is scaled by {float(size.sqrt()[0]):.4g}: divide the first three rows by it"
    if (torch.linalg.det(axes) < 0).any():
        return "world_to_camera is mirrored (its determinant is −1): one axis points the other way"
    return None


def _intrinsics(cameras: Cameras, aspect: Float[Tensor, " view"] | None) -> str | None:
    """Return what is wrong with the intrinsics, or None."""
    inner = cameras.intrinsics
    if not torch.allclose(inner[:, 2], inner.new_tensor([0.0, 0, 1]).expand(len(inner), 3), atol=1e-4):
        return "intrinsics look transposed, or their last row is not 0 0 1"
    focal, middle = inner[:, [0, 1], [0, 1]], inner[:, :2, 2]
    skew = inner[:, [0, 1], [1, 0]].abs() / focal.abs().clamp(min=1e-6)
    if (skew > _SKEW).any():
        return (
            f"intrinsics have {float(inner[:, [0, 1], [1, 0]].abs().max()):.3g} beside the focal lengths, where "
            "pictures have 0: their axes would not be at right angles"
        )
    if (focal == 0).any():
        return "a focal length is 0"
    if (focal < 0).any():
        return "a focal length is negative, as in OpenGL's axes: make it positive and turn that axis of world_to_camera"
    # The same in all views: in cropped pictures the principal point may be anywhere.
    alike = middle.amax(0) - middle.amin(0) <= _ALIKE * middle.mean(0).abs()
    pixels = alike & (middle > _FAR_OUT).all(0)
    if not cameras.orthographic:  # whose focal lengths are sides of the view in world units, which are any
        pixels = pixels | (alike & (focal > _FOCAL[1]).all(0))
    if pixels.any():
        worst = inner[0]
        numbers = [f"{float(worst[row, column]):.4g}" for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))]
        return (
            "intrinsics look like pixels (focal lengths {} and {}, principal point {}, {}): divide the first row by "
            "the width of the picture that they are for, and the second by its height".format(*numbers)
        )
    if middle.abs().max() < 0.05:
        return (
            "intrinsics look like those to −1…1 (the principal point is 0, 0): halve the first two rows, then add 0.5 "
            "to the principal point"
        )
    times = float(2 * middle.mean())
    if len(inner) > 1 and ((2 * middle - times).abs() <= _SIZED).all() and abs(times - 1) > _RESIZED:
        return (
            f"intrinsics look like those of a picture {times:.3g} times as large as what they were divided by (the "
            f"principal point of all views is {times / 2:.3g}, {times / 2:.3g}): divide by the width and the height of "
            "the picture that they are for"
        )
    if not cameras.orthographic and (focal < _FOCAL[0]).any():
        return f"a focal length of {float(focal.min()):.3g} is a field of view of over 170°"
    ratio = focal[:, 0] / focal[:, 1] * (1.0 if aspect is None else aspect.to(focal))
    if aspect is not None and ((ratio - 1).abs() > _SQUARE).any():
        odd = int((ratio - 1).abs().argmax())
        return (
            f"intrinsics of view {odd} are for a picture of another shape: with them a pixel is "
            f"{float(1 / ratio[odd]):.3g} times as wide as high; give those of the picture as it is, not cut, padded, "
            "turned or squeezed"
        )
    return None


def _far(cameras: Cameras) -> str | None:
    """Return that the cameras are too far from the origin, or None."""
    centres = cameras.centers.double()
    far, apart = float(centres.norm(dim=1).max()), float((centres - centres.mean(0)).norm(dim=1).max())
    if cameras.orthographic or not 0 < apart * _FROM_ORIGIN < far:
        return None
    return (
        f"the cameras are {far:.3g} from the origin and {apart:.3g} from each other, which is too far for single "
        "precision: move the origin near the object"
    )


def _poses(cameras: Cameras, convention: Convention) -> str | None:
    """Return what is wrong with the poses taken together, or None."""
    if len(cameras) < 2 or (cameras.orthographic and not cameras.world_to_camera[:, :3, 3].any()):
        return None  # orthographic cameras may be anywhere on their axes, even at the middle
    given, inverse = cameras.world_to_camera, torch.linalg.inv(cameras.world_to_camera)
    flip = torch.diag(given.new_tensor([1.0, -1, -1, 1]))
    readings = {convention.inverse: inverse, convention.flipped: flip @ given, convention.both: flip @ inverse}
    off = _off_centre(cameras)
    others = {words: _off_centre(replace(cameras, world_to_camera=poses)) for words, poses in readings.items()}
    words, best = min(others.items(), key=lambda other: other[1])
    # A wrong convention may look roughly at one point by chance; the correct one looks at it well.
    if best <= 0.5 and (off > 0.5 + _BESIDE or best < _BETTER * off - _CLEARLY):
        return f"world_to_camera looks like {words}"
    return f"the cameras do not look at one object: {_lost(cameras)}" if off > 0.5 + _BESIDE else None


def _off_centre(cameras: Cameras) -> float:
    """Compute how far, in sides, the point nearest to all axes lies from the middle of the view, for the worst camera.

    The result is infinite where that point is behind a camera, or where all cameras stand at one point.
    """
    return math.inf if _at_one_point(cameras) else float(_aside(cameras).max())


def _at_one_point(cameras: Cameras) -> bool:
    centres = cameras.centers.double()
    middle = search_volume(cameras)[0]
    # The object is what all of them have in front of them, wherever the origin is; if they have nothing, the origin is.
    looked_at = middle if (cameras.depth(middle[None]) > 0).all() else torch.zeros_like(middle)
    reach = (centres - looked_at).norm(dim=1).max()
    return bool((centres - centres.mean(0)).norm(dim=1).max() <= _APART * reach)


def _aside(cameras: Cameras) -> Float[Tensor, " view"]:
    middle = search_volume(cameras)[0][None]
    away = (cameras.project(middle)[:, 0] - 0.5).abs().amax(-1)
    return away.where(cameras.depth(middle)[:, 0] > 0, math.inf)


def _lost(cameras: Cameras) -> str:
    if _at_one_point(cameras):
        return "all stand at one point"
    which = ", ".join(map(str, (_aside(cameras) > 0.5 + _BESIDE).nonzero()[:, 0].tolist()))
    return f"the point nearest to all their axes is behind, or out of the picture of, camera {which} (counted from 0)"
