"""Write 3D keypoints for 3D programs: GLB (with cameras and skeleton; y up) and PLY (points; z up)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.output.choices import Edge, check_edges
from keyorbit.output.palette import keypoint_name, palette, rgb
from keyorbit.storage.files import write_bytes

# glTF is y-up: (x, y, z) of our z-up world is (x, z, -y) there.
TO_Y_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
# Shares of the object's size.
RADIUS, _FRUSTUM = 0.012, 0.15
_PROPERTIES = "float x|float y|float z|uchar red|uchar green|uchar blue|uchar alpha|int keypoint|float score"


def write_points(
    path: Path,
    points: Keypoints3D,
    cameras: Cameras | None = None,
    skeleton: Sequence[Edge] = (),
    names: Sequence[str] = (),
) -> None:
    """Write the 3D keypoints as ``.glb`` or ``.ply``. Points of score 0 are left out.

    GLB, y up: a coloured sphere for each keypoint, called ``keypoint_03`` or by its own of ``names``, line sets
    ``camera_view_2``, and ``skeleton`` if edges are given. Sizes are relative to the object. The colour is a texture of
    one pixel, which glTF reads as sRGB; a vertex colour would be read as linear light and look paler than in the other
    files.

    PLY, z up: coloured points with the properties ``keypoint`` (number) and ``score``, and their names as comments. It
    has no edges, because trimesh drops a PLY's colours if there are any.

    Raises:
        InputError: the suffix is another one, an edge does not join two keypoints, there is no point to show, or the
            file cannot be written.
    """
    check_edges(skeleton, len(points.score))
    kept = [k for k in range(len(points.score)) if float(points.score[k]) > 0]
    if path.suffix == ".ply":
        write_bytes(path, _ply(points, kept, names).encode())
    elif path.suffix == ".glb":
        if not kept and cameras is None:
            raise InputError(f"{path} would be empty: no keypoint has a score, and no cameras are given")
        write_bytes(path, _scene(points, kept, cameras, skeleton, names).export(file_type="glb"))
    else:
        raise InputError(f"{path} is neither .glb nor .ply")


def _ply(points: Keypoints3D, kept: Sequence[int], names: Sequence[str]) -> str:
    colors = [rgb(color) for color in palette(len(points.score))]
    header = ["ply", "format ascii 1.0", "comment world of keyorbit: z up"]
    header += [f"comment {keypoint_name(k, names)}" for k in kept]
    header += [f"element vertex {len(kept)}", *(f"property {name}" for name in _PROPERTIES.split("|")), "end_header"]
    rows = []
    for k in kept:
        place = " ".join(f"{value:.9g}" for value in points.xyz[k].tolist())
        rows.append(f"{place} {' '.join(map(str, colors[k]))} 255 {k} {float(points.score[k]):.6g}")
    return "\n".join([*header, *rows, ""])


def _scene(
    points: Keypoints3D,
    kept: Sequence[int],
    cameras: Cameras | None,
    skeleton: Sequence[Edge],
    names: Sequence[str],
) -> Any:
    import trimesh

    xyz = points.xyz.cpu().double().numpy()
    colors, size = [rgb(color) for color in palette(len(xyz))], _size(xyz[kept])
    scene = trimesh.Scene()
    for k in kept:
        place = np.eye(4)
        place[:3, 3] = xyz[k]
        name = keypoint_name(k, names)
        sphere = ball(name, colors[k], RADIUS * size)
        scene.add_geometry(sphere, node_name=name, geom_name=name, transform=TO_Y_UP @ place)
    lines = {} if cameras is None else {f"camera_view_{i}": _frustum(cameras, i, size) for i in range(len(cameras))}
    bones = [xyz[list(edge)] for edge in skeleton if set(edge) <= set(kept)]
    if bones:
        lines["skeleton"] = np.stack(bones)
    for name, segments in lines.items():
        scene.add_geometry(trimesh.load_path(segments), node_name=name, geom_name=name, transform=TO_Y_UP)
    return scene


def _size(xyz: Float[ndarray, "keypoint 3"]) -> float:
    """Estimate the object's diameter from its keypoints, ignoring outliers; 1 where they do not determine it."""
    if len(xyz) < 2:
        return 1.0
    away = np.linalg.norm(xyz - np.median(xyz, 0), axis=1)
    return 2 * float(np.quantile(away, 0.75)) or 1.0


def ball(name: str, color: tuple[int, int, int], radius: float) -> Any:
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    """Return a coloured sphere about the origin, of that name."""
    sphere = trimesh.creation.icosphere(subdivisions=2, radius=radius)
    material = PBRMaterial(
        name=name, baseColorTexture=Image.new("RGB", (1, 1), color), metallicFactor=0.0, roughnessFactor=1.0
    )
    sphere.visual = TextureVisuals(uv=np.full((len(sphere.vertices), 2), 0.5), material=material)
    return sphere


def _frustum(cameras: Cameras, index: int, size: float) -> Float[ndarray, "line 2 3"]:
    """Return segments from the camera to the corners of its picture, and round the picture."""
    tip, rim = frustum(cameras, index, _FRUSTUM * size)
    return np.concatenate([np.stack([tip, rim], 1), np.stack([rim, np.roll(rim, -1, 0)], 1)])


def frustum(cameras: Cameras, index: int, depth: float) -> tuple[Float[ndarray, "4 3"], Float[ndarray, "4 3"]]:
    """Return start and end, in the world, of the four lines from a camera to its picture at ``depth``.

    The corners of the picture are in order, beginning at the top left one. The four lines of an orthographic camera are
    parallel, as it has no centre.
    """
    corners = np.array([[0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], float)
    rays = corners @ np.linalg.inv(cameras.intrinsics[index].cpu().double().numpy()).T
    near = rays * [1, 1, 0] if cameras.orthographic else np.zeros_like(rays)
    far = rays * [1, 1, depth] if cameras.orthographic else rays * depth
    to_world = np.linalg.inv(cameras.world_to_camera[index].cpu().double().numpy())
    tip, rim = (place @ to_world[:3, :3].T + to_world[:3, 3] for place in (near, far))
    return tip, rim
