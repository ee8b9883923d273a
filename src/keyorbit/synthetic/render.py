"""Ray-cast pictures of objects and mesh files from given cameras, with silhouettes and visibility of points."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.synthetic.meshes.materials import Appearance, colors_at, glow_at
from keyorbit.synthetic.objects import SyntheticObject
from keyorbit.synthetic.paint import Paint
from keyorbit.synthetic.shapes import join

# Faces behind one another that a ray goes through, how far behind one the next begins (the object's radius is 0.5), and
# the alpha below which nothing is seen.
_LAYERS, _BEHIND, _CLEAR = 64, 1e-5, 0.01
# Just enough that loaders, which cut at 127 of 255, take it for the object.
_LEAST_ALPHA = 0.51


@dataclass(frozen=True)
class Surface:
    """A mesh with its colours: one for each face, with patterns, or those of a file's materials.

    Attributes:
        mesh: a trimesh.Trimesh.
        face_colors: colour of each face, 0…1; with ``look`` it is not used.
        paints: patterns.
        face_paint: index into ``paints`` for each face, −1 for a plain face. None without patterns.
        look: materials of a file. None for other meshes.
    """

    mesh: Any
    face_colors: Float[ndarray, "face 3"]
    paints: tuple[Paint, ...] = ()
    face_paint: Int[ndarray, " face"] | None = None
    look: Appearance | None = None


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


def render(
    surface: Surface, cameras: Cameras, size: int, light: Light | None = None, supersample: int = 2
) -> UInt8[ndarray, "view size size 4"]:
    """Render RGBA pictures (straight alpha), one for each camera, with ``supersample``² rays for each pixel.

    Raises:
        InputError: embreex, the ray caster, is not installed.
    """
    _require_embree()
    if surface.look is not None and len(cameras) > 1:  # view by view: large pictures of files' textures fill the memory
        each = (cameras.select([i]) for i in range(len(cameras)))
        return np.concatenate([render(surface, one, size, light, supersample) for one in each])
    light = light or Light()
    origins, directions = _rays(cameras, size * supersample)
    if surface.look is not None and surface.look.see_through:
        rgba = _through(surface, origins, directions, light)
    else:
        rgba = np.zeros((len(origins), 4))
        hit = surface.mesh.ray.intersects_first(origins, directions)
        solid = hit >= 0
        rgba[solid] = _shade(surface, hit[solid], origins[solid], directions[solid], light)
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
    surface: Surface,
    points: Float[ndarray, "point 3"],
    cameras: Cameras,
    tolerance: float | Float[ndarray, " point"] = 0.03,
) -> Bool[ndarray, "view point"]:
    """Compute whether each camera sees each point: no surface is more than ``tolerance`` (world units) nearer.

    It is one number, or one for each point.
    """
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
    nearest = rearrange(distance, "(v p) -> v p", v=len(cameras)) - tolerance
    seen: ndarray = rearrange(first, "(v p) -> v p", v=len(cameras)) >= nearest
    return seen


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


def _through(
    surface: Surface, origins: Float[ndarray, "ray 3"], directions: Float[ndarray, "ray 3"], light: Light
) -> Float[ndarray, "ray 4"]:
    """Follow rays through what can be seen through; return colours (premultiplied) and alpha.

    Where anything is met, alpha is at least a little more than one half: an object of glass has a silhouette too.
    """
    found, left = np.zeros((len(origins), 4)), np.ones(len(origins))
    alive, start = np.arange(len(origins)), origins.copy()
    for _ in range(_LAYERS):
        hit = surface.mesh.ray.intersects_first(start[alive], directions[alive])
        alive, hit = alive[hit >= 0], hit[hit >= 0]
        if not len(alive):
            break
        rgba = _shade(surface, hit, start[alive], directions[alive], light)
        share = left[alive] * rgba[:, 3]
        found[alive, :3] += share[:, None] * rgba[:, :3]
        left[alive] -= share
        distance = _hit_distance(surface, hit, start[alive], directions[alive])
        start[alive] += directions[alive] * (np.maximum(distance, 0) + _BEHIND)[:, None]
        alive = alive[left[alive] > _CLEAR]
    alpha = 1 - left
    seen = alpha > _CLEAR
    found[~seen] = 0
    least = np.where(seen, np.maximum(alpha, _LEAST_ALPHA), 0.0)
    found[seen, :3] *= (least / np.maximum(alpha, _CLEAR))[seen, None]
    found[:, 3] = least
    return found


def _shade(
    surface: Surface,
    face: ndarray,
    origins: Float[ndarray, "ray 3"],
    directions: Float[ndarray, "ray 3"],
    light: Light,
) -> Float[ndarray, "ray 4"]:
    """Compute colours and alpha of the faces that the rays hit, with two-sided Lambert shading."""
    normal = surface.mesh.face_normals[face]
    facing = np.sign(-(normal * directions).sum(1, keepdims=True))
    lamp = np.asarray(light.direction) / np.linalg.norm(light.direction)
    lit = light.ambient + light.diffuse * np.clip((normal * facing) @ lamp, 0, None)
    alpha, glow = np.ones((len(face), 1)), np.zeros((1, 3))
    if surface.look is not None:
        weights = _corner_weights(surface, surface.look, face, origins, directions)
        rgba, glow = colors_at(surface.look, face, weights), glow_at(surface.look, face, weights)
        color, alpha = rgba[:, :3], rgba[:, 3:]
    else:
        color = surface.face_colors[face]
        if surface.face_paint is not None:
            color = _patterned(surface, surface.face_paint[face], face, color, origins, directions)
    return np.concatenate([np.clip(color * lit[:, None] + glow, 0, 1), alpha], axis=1)


def _corner_weights(
    surface: Surface,
    look: Appearance,
    face: ndarray,
    origins: Float[ndarray, "ray 3"],
    directions: Float[ndarray, "ray 3"],
) -> Float[ndarray, "ray 3"]:
    """Return how near the places that rays hit are to the corners of their faces; where it matters."""
    import trimesh

    if look.corner_uv is None and look.corner_colors is None:
        return np.full((len(face), 3), 1 / 3)
    at = origins + directions * _hit_distance(surface, face, origins, directions)[:, None]
    with np.errstate(all="ignore"):  # a triangle so thin that it has no inside
        weights = trimesh.triangles.points_to_barycentric(surface.mesh.triangles[face], at)
    weights = np.clip(np.nan_to_num(weights, nan=1 / 3), 0, 1)
    found: ndarray = weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)
    return found


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
