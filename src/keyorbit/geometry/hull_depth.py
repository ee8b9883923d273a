"""Depth of the visual hull as the views see it, and where it is behind a place in a picture."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import beside_silhouette, search_volume, silhouette_distance

# Steps along each ray, over the volume that is searched.
_STEPS = 128
# The same of a single ray.
_FINE_STEPS = 1024
# Points of rays that are looked at together.
_TOGETHER = 2**21


def hull_depth(
    masks: Bool[Tensor, "view height width"], cameras: Cameras, steps: int = _STEPS
) -> Float[Tensor, "view height width"]:
    """Compute how far the visual hull is from each view's camera plane along each pixel's ray; world units.

    Every pixel of a silhouette has a depth: where silhouettes contradict each other, that of the ray's point which is
    least beside them all. Others are inf.

    Args:
        masks: True on the object.
        cameras: of the views.
        steps: points that are looked at along a ray, 2 or more. Default 128: one for each 2.7 % of the radius of the
            volume that all views see.
    """
    device, masks, cameras = masks.device, masks.cpu(), cameras.to("cpu", torch.float32)
    distance = silhouette_distance(masks)
    height, width = masks.shape[-2:]
    depth = torch.full(masks.shape, torch.inf)
    middle, radius = search_volume(cameras)
    reach = 3**0.5 * radius
    # Half a pixel: the ray through a pixel's middle is on the silhouette.
    edge = 0.5 / max(height, width)
    for view, mask in enumerate(masks):
        if not mask.any():
            continue
        rows, columns = mask.nonzero(as_tuple=True)
        xy = torch.stack([(columns + 0.5) / width, (rows + 0.5) / height], dim=-1)
        centre = float(cameras.depth(middle[None])[view])
        along = torch.linspace(max(centre - reach, 0.0), centre + reach, steps)
        for some in torch.split(torch.arange(len(rows)), max(1, _TOGETHER // (steps * len(masks)))):
            points = _at_depths(cameras.select([view]), xy[some], along)
            away = beside_silhouette(distance, cameras.project(points.flatten(0, 1))).amax(0)
            away = (away - edge).clamp_min(0).reshape(points.shape[:2])
            first = (away <= away.amin(1, keepdim=True)).float().argmax(1)
            depth[view, rows[some], columns[some]] = along[first]
    return depth.to(device)


def lifted(
    xy: Float[Tensor, "2"],
    camera: Cameras,
    distance: Float[Tensor, "view height width"],
    cameras: Cameras,
    steps: int = _FINE_STEPS,
) -> Float[Tensor, "3"]:
    """Find the point of the visual hull that a camera sees at a place: the first one on its ray; world units.

    Where the ray passes beside the hull, it is the point of the ray that is least beside the silhouettes.

    Args:
        xy: place in the unit square of the camera's picture.
        camera: a single one, of one of the views or of another picture of the object.
        distance: from the silhouettes, 0 on them.
        cameras: of the views.
        steps: points that are looked at along the ray. Default 1024: one for each 0.34 % of the radius of the volume
            that all views see.
    """
    device, xy, distance = distance.device, xy.cpu(), distance.cpu()
    camera, cameras = camera.to("cpu", torch.float32), cameras.to("cpu", torch.float32)
    middle, radius = search_volume(cameras)
    centre, reach = float(camera.depth(middle[None])[0]), 3**0.5 * radius
    along = torch.linspace(max(centre - reach, 0.0), centre + reach, steps)
    points = _at_depths(camera, xy[None], along)[0]
    away = beside_silhouette(distance, cameras.project(points)).amax(0)
    away = (away - 0.5 / max(distance.shape[-2:])).clamp_min(0)
    return points[int((away <= away.min()).float().argmax())].to(device)


def _at_depths(
    camera: Cameras, xy: Float[Tensor, "ray 2"], depths: Float[Tensor, " step"]
) -> Float[Tensor, "ray step 3"]:
    """Return the world points on the rays through positions of a single view, at these depths."""
    inner, pose = camera.intrinsics[0], camera.world_to_camera[0]
    beside = torch.linalg.solve(inner[:2, :2], (xy - inner[:2, 2]).T).T
    scale = torch.ones_like(depths) if camera.orthographic else depths
    flat = beside[:, None] * scale[None, :, None]
    points = torch.cat([flat, depths.expand(len(xy), -1)[..., None]], dim=-1)
    world: Tensor = (points - pose[:3, 3]) @ pose[:3, :3]
    return world
