"""Ray-cast pictures of objects and mesh files from given cameras, with silhouettes and visibility of points."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.pictures import eight_bits
from keyorbit.synthetic.mesh_files import fit_sphere, read_mesh
from keyorbit.synthetic.objects import SyntheticObject
from keyorbit.synthetic.paint import Paint
from keyorbit.synthetic.shapes import join


@dataclass(frozen=True)
class Surface:
    """A mesh with its colours: one for each face, or a texture.

    Attributes:
        mesh: a trimesh.Trimesh.
        face_colors: colour of each face, 0…1.
        uv: texture coordinates of each vertex, with the origin at the bottom left. None without a texture.
        texture: colours 0…1. None without one.
        paints: patterns.
        face_paint: index into ``paints`` for each face, −1 for a plain face. None without patterns.
    """

    mesh: Any
    face_colors: Float[ndarray, "face 3"]
    uv: Float[ndarray, "vertex 2"] | None = None
    texture: Float[ndarray, "height width 3"] | None = None
    paints: tuple[Paint, ...] = ()
    face_paint: Int[ndarray, " face"] | None = None


@dataclass(frozen=True)
class Light:
    """One distant lamp; a surface has its colour times ambient + diffuse·cos(angle of incidence).

    Attributes:
        direction: from the object to the lamp.
        ambient: 0…1.
        diffuse: 0…1.
    """

    direction: tuple[float, float, float] = (0.4, 0.3, 0.85)
    ambient: float = 0.6
    diffuse: float = 0.4


def random_light(rng: np.random.Generator) -> Light:
    """Draw a lamp in the upper half-sphere."""
    x, y = rng.normal(0, 0.6, 2)
    ambient = float(rng.uniform(0.5, 0.7))
    return Light((float(x), float(y), 1.0), ambient, 1.0 - ambient)


def object_surface(thing: SyntheticObject) -> Surface:
    """Return the surface of a procedural object."""
    import trimesh

    shape = join([part.shape for part in thing.parts])
    sizes = [len(part.shape.faces) for part in thing.parts]
    colors = np.repeat(np.stack([part.paint.first for part in thing.parts]), sizes, axis=0)
    patterned = [i if part.paint.frequency.any() else -1 for i, part in enumerate(thing.parts)]
    return Surface(
        trimesh.Trimesh(shape.vertices, shape.faces, process=False),
        colors,
        paints=tuple(part.paint for part in thing.parts),
        face_paint=np.repeat(patterned, sizes),
    )


def load_surface(path: Path, up: str = "y") -> Surface:
    """Read a mesh file (any format of trimesh) with its texture or colours, scaled into the sphere of radius 0.5.

    ``up`` is the file's upward axis (``"y"`` for glTF and most OBJ, or ``"z"``); the result has +z up.

    Raises:
        InputError: as :func:`keyorbit.synthetic.mesh_files.read_mesh`, or the mesh has no extent, or colours or a
            texture that cannot be read.
    """
    import trimesh

    mesh = read_mesh(path)
    vertices = np.asarray(mesh.vertices, float)
    if up == "y":
        vertices = vertices[:, [2, 0, 1]]  # y up, facing +z  →  z up, facing +x
    centre, scale = fit_sphere(vertices, str(path))
    placed = trimesh.Trimesh((vertices - centre) * scale, mesh.faces, process=False)
    try:
        return _coloured(placed, mesh, path)
    except InputError:
        raise
    except Exception as error:  # trimesh and Pillow decode only now
        raise InputError(f"the colours or the texture of {path} cannot be read: {error}") from error


def _coloured(placed: Any, mesh: Any, path: Path) -> Surface:
    """Return the mesh in its place with its colours as they were read."""
    image = getattr(getattr(mesh.visual, "material", None), "image", None)
    image = image or getattr(getattr(mesh.visual, "material", None), "baseColorTexture", None)
    uv = getattr(mesh.visual, "uv", None)
    if image is not None and uv is not None:
        texture = np.asarray(eight_bits(image, f"the texture of {path}").convert("RGB"), float) / 255
        uv = np.asarray(uv, float)
        if uv.ndim != 2 or len(uv) != len(placed.vertices) or uv.shape[1] < 2 or not np.isfinite(uv).all():
            raise InputError(f"{path} has texture coordinates that are not two finite numbers for each vertex")
        return Surface(placed, np.full((len(mesh.faces), 3), 0.7), uv, texture)
    colors = _face_colors(mesh)
    if colors.shape != (len(mesh.faces), 3) or not np.isfinite(colors).all():
        raise InputError(f"{path} has colours that are not three finite numbers for each face")
    return Surface(placed, colors)


def _face_colors(mesh: Any) -> Float[ndarray, "face 3"]:
    """Return the colours of faces or vertices; without any, the material's one colour (or trimesh's grey)."""
    import trimesh

    if mesh.visual.kind in ("face", "vertex"):
        colors: ndarray = np.asarray(mesh.visual.face_colors, float)[:, :3] / 255
        return colors
    main = getattr(getattr(mesh.visual, "material", None), "main_color", trimesh.visual.DEFAULT_COLOR)
    return repeat(np.asarray(main, float)[:3] / 255, "c -> f c", f=len(mesh.faces))


def render(
    surface: Surface, cameras: Cameras, size: int, light: Light | None = None, supersample: int = 2
) -> UInt8[ndarray, "view size size 4"]:
    """Render RGBA pictures (straight alpha), one for each camera, with ``supersample``² rays for each pixel.

    Raises:
        InputError: embreex, the ray caster, is not installed.
    """
    _require_embree()
    light = light or Light()
    origins, directions = _rays(cameras, size * supersample)
    hit = surface.mesh.ray.intersects_first(origins, directions)
    solid = hit >= 0
    face = hit[solid]
    rgba = np.zeros((len(hit), 4))
    rgba[solid, :3] = _shade(surface, face, origins[solid], directions[solid], light)
    rgba[solid, 3] = 1.0
    rgba = reduce(
        rgba,
        "(v y sy x sx) c -> v y x c",
        "mean",
        v=len(cameras),
        y=size,
        sy=supersample,
        sx=supersample,
    )
    rgba[..., :3] /= np.maximum(rgba[..., 3:], 1e-6)
    return np.round(rgba * 255).astype(np.uint8)


def seen_places(
    surface: Surface, cameras: Cameras, size: int
) -> tuple[Int[ndarray, "view size size"], Float[ndarray, "view size size 3"]]:
    """Return the face that each pixel's centre shows (−1 for none) and the point on it, in world units (0 for none).

    Raises:
        InputError: embreex, the ray caster, is not installed.
    """
    _require_embree()
    origins, directions = _rays(cameras, size)
    face = surface.mesh.ray.intersects_first(origins, directions)
    solid = face >= 0
    at = np.zeros((len(face), 3))
    distance = _hit_distance(surface, face[solid], origins[solid], directions[solid])
    at[solid] = origins[solid] + directions[solid] * distance[:, None]
    shape = {"v": len(cameras), "y": size}
    return rearrange(face, "(v y x) -> v y x", **shape), rearrange(at, "(v y x) c -> v y x c", **shape)


def visible(
    surface: Surface, points: Float[ndarray, "point 3"], cameras: Cameras, tolerance: float = 0.03
) -> Bool[ndarray, "view point"]:
    """Compute whether each camera sees each point: no surface is more than ``tolerance`` (world units) nearer."""
    _require_embree()
    centres = cameras.centers.double().numpy()
    origins = repeat(centres, "v c -> (v p) c", p=len(points))
    towards = rearrange(points[None] - centres[:, None], "v p c -> (v p) c")
    distance = np.linalg.norm(towards, axis=1)
    directions = towards / distance[:, None]
    hit = surface.mesh.ray.intersects_first(origins, directions)
    first = np.full(len(hit), np.inf)
    solid = hit >= 0
    first[solid] = _hit_distance(surface, hit[solid], origins[solid], directions[solid])
    return rearrange(first >= distance - tolerance, "(v p) -> v p", v=len(cameras))


def sample_surface(surface: Surface, count: int, seed: int) -> Float[ndarray, "{count} 3"]:
    """Draw points uniformly over the surface. The same seed gives the same points, however the object is rotated."""
    import trimesh

    points: ndarray = trimesh.sample.sample_surface(surface.mesh, count, seed=seed)[0]
    return np.asarray(points, float)


def composite(
    rgba: UInt8[ndarray, "*batch 4"], background: float | Float[ndarray, "3"] = 127 / 255
) -> UInt8[ndarray, "*batch 3"]:
    """Lay RGBA pictures on a background (0…1, one number or one for each channel); Zero123++ expects 127/255."""
    alpha = rgba[..., 3:].astype(float) / 255
    mixed = rgba[..., :3] * alpha + 255 * background * (1 - alpha)
    return np.round(mixed).astype(np.uint8)


def _rays(cameras: Cameras, size: int) -> tuple[Float[ndarray, "ray 3"], Float[ndarray, "ray 3"]]:
    """Return origins and unit directions through the pixel centres: views first, then rows, then columns."""
    step = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    y, x = torch.meshgrid(step, step, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], -1)
    camera_points = torch.einsum("vij,yxj->vyxi", cameras.intrinsics.double().inverse(), pixels)
    to_world = cameras.world_to_camera.double().inverse()
    rotation, centre = to_world[:, :3, :3], to_world[:, :3, 3]
    ones = torch.ones_like(camera_points[..., :1])
    if cameras.orthographic:
        flat = torch.cat([camera_points[..., :2], -2 * ones], -1)
        origins = torch.einsum("vij,vyxj->vyxi", rotation, flat) + centre[:, None, None]
        directions = rotation[:, None, None, :, 2].expand_as(origins)
    else:
        directions = torch.einsum("vij,vyxj->vyxi", rotation, camera_points)
        origins = centre[:, None, None].expand_as(directions)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return origins.reshape(-1, 3).numpy(), directions.reshape(-1, 3).numpy()


def _shade(
    surface: Surface,
    face: ndarray,
    origins: Float[ndarray, "ray 3"],
    directions: Float[ndarray, "ray 3"],
    light: Light,
) -> Float[ndarray, "ray 3"]:
    """Compute the colours of the faces that the rays hit, with two-sided Lambert shading."""
    import trimesh

    normal = surface.mesh.face_normals[face]
    facing = np.sign(-(normal * directions).sum(1, keepdims=True))
    lamp = np.asarray(light.direction) / np.linalg.norm(light.direction)
    lit = light.ambient + light.diffuse * np.clip((normal * facing) @ lamp, 0, None)
    color = surface.face_colors[face]
    if surface.face_paint is not None:
        color = _patterned(surface, surface.face_paint[face], face, color, origins, directions)
    if surface.texture is not None and surface.uv is not None:
        at = origins + directions * _hit_distance(surface, face, origins, directions)[:, None]
        weights = trimesh.triangles.points_to_barycentric(surface.mesh.triangles[face], at)
        uv = (surface.uv[surface.mesh.faces[face]] * weights[..., None]).sum(1) % 1.0
        height, width = surface.texture.shape[:2]
        row = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
        column = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
        color = surface.texture[row, column]
    shaded: ndarray = np.clip(color * lit[:, None], 0, 1)
    return shaded


def _patterned(
    surface: Surface, which: ndarray, face: ndarray, color: ndarray, origins: ndarray, directions: ndarray
) -> ndarray:
    """Return the colours of the faces, with the second one where the pattern ``which`` (−1 for none) puts it."""
    color = color.copy()
    for i in np.unique(which[which >= 0]):
        here = np.flatnonzero(which == i)
        paint = surface.paints[i]
        at = (
            origins[here]
            + directions[here] * _hit_distance(surface, face[here], origins[here], directions[here])[:, None]
        )
        odd = np.floor(at @ paint.frequency.T + paint.phase).sum(1) % 2 == 1
        color[here[odd]] = paint.second
    return color


def _hit_distance(
    surface: Surface, face: ndarray, origins: Float[ndarray, "ray 3"], directions: Float[ndarray, "ray 3"]
) -> Float[ndarray, " ray"]:
    normal = surface.mesh.face_normals[face]
    corner = surface.mesh.triangles[face, 0]
    slope = (normal * directions).sum(1)
    slope = np.where(np.abs(slope) < 1e-12, 1e-12, slope)
    distance: ndarray = ((corner - origins) * normal).sum(1) / slope
    return distance


def _require_embree() -> None:
    import trimesh

    if not trimesh.ray.has_embree:
        raise InputError("rendering needs the ray caster embreex: pip install 'keyorbit[synthetic]'")
