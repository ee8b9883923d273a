"""Colours of a mesh's surface: materials with textures, colours of corners, and what can be seen through."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

Wrap = Literal["repeat", "clamp", "mirror"]
AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]


@dataclass(frozen=True)
class Material:
    """What a part of a surface looks like.

    Attributes:
        color: red, green, blue and alpha, 0…1; they are factors of the texture and of corners' colours.
        texture: sRGB and alpha. None without one.
        wrap: how the texture goes on beyond its borders, across and up.
        linear: whether ``color`` and corners' colours are linear and are multiplied so, as in glTF; else they are sRGB.
        mode: whether alpha is ignored, decides between there and not there, or mixes with what lies behind.
        cutoff: the alpha from which on a ``MASK`` is there.
        stated: whether the file says anything of its colour.
        glow: red, green and blue of its own light, linear, which is added to what it reflects.
        glow_texture: factors of it: sRGB, alpha is ignored. None without one.
    """

    color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    texture: UInt8[ndarray, "height width 4"] | None = None
    wrap: tuple[Wrap, Wrap] = ("repeat", "repeat")
    linear: bool = False
    mode: AlphaMode = "OPAQUE"
    cutoff: float = 0.5
    stated: bool = True
    glow: tuple[float, float, float] = (0.0, 0.0, 0.0)
    glow_texture: UInt8[ndarray, "height2 width2 4"] | None = None


@dataclass(frozen=True)
class Appearance:
    """The colours of a mesh of several materials.

    Attributes:
        materials: of all parts.
        face_material: index into ``materials`` for each face.
        corner_uv: texture coordinates, with the origin at the bottom left. None where nothing has a texture.
        corner_colors: red, green, blue, alpha of each face's corners. None where no corner has one of its own.
    """

    materials: tuple[Material, ...]
    face_material: Int[ndarray, " face"]
    corner_uv: Float[ndarray, "face 3 2"] | None = None
    corner_colors: Float[ndarray, "face 3 4"] | None = None

    @property
    def see_through(self) -> bool:
        """Whether a ray may have to go on behind the first face that it hits."""
        return any(material.mode != "OPAQUE" for material in self.materials)


def colors_at(
    look: Appearance, face: Int[ndarray, " ray"], weights: Float[ndarray, "ray 3"]
) -> Float[ndarray, "ray 4"]:
    """Return sRGB and alpha of places on faces, given by the weights of the faces' corners; without their own light."""
    found = np.ones((len(face), 4))
    which = look.face_material[face]
    for i in np.unique(which):
        here, material = which == i, look.materials[i]
        value = np.tile(np.asarray(material.color, float), (int(here.sum()), 1))
        if look.corner_colors is not None:
            value *= (look.corner_colors[face[here]] * weights[here, :, None]).sum(1)
        if material.texture is not None and look.corner_uv is not None:
            uv = (look.corner_uv[face[here]] * weights[here, :, None]).sum(1)
            texel = _texels(material.texture, material.wrap, uv)
            value[:, :3] *= srgb_to_linear(texel[:, :3]) if material.linear else texel[:, :3]
            value[:, 3] *= texel[:, 3]
        value = np.clip(value, 0, 1)
        if material.linear:
            value[:, :3] = linear_to_srgb(value[:, :3])
        if material.mode == "OPAQUE":
            value[:, 3] = 1.0
        elif material.mode == "MASK":
            value[:, 3] = value[:, 3] >= material.cutoff
        found[here] = value
    return found


def glow_at(look: Appearance, face: Int[ndarray, " ray"], weights: Float[ndarray, "ray 3"]) -> Float[ndarray, "ray 3"]:
    """Return the surface's own light at places on faces, as sRGB."""
    found = np.zeros((len(face), 3))
    which = look.face_material[face]
    for i, material in enumerate(look.materials):
        if not any(material.glow) or not (here := which == i).any():
            continue
        value = np.tile(np.asarray(material.glow, float), (int(here.sum()), 1))
        if material.glow_texture is not None and look.corner_uv is not None:
            uv = (look.corner_uv[face[here]] * weights[here, :, None]).sum(1)
            value *= srgb_to_linear(_texels(material.glow_texture, material.wrap, uv)[:, :3])
        found[here] = linear_to_srgb(np.clip(value, 0, 1))
    return found


def face_colours(look: Appearance) -> Float[ndarray, "face 3"]:
    """Return one sRGB colour for each face: its material's, times the mean of its corners', without textures."""
    linear = np.array([material.linear for material in look.materials])[look.face_material]
    colors = np.array([material.color[:3] for material in look.materials], float)[look.face_material]
    if look.corner_colors is not None:
        colors = colors * look.corner_colors[..., :3].mean(1)
    colors = np.clip(colors, 0, 1)
    found: ndarray = np.where(linear[:, None], linear_to_srgb(colors), colors)
    return found


def linear_to_srgb(value: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Convert linear light, 0…1, to sRGB (IEC 61966-2-1)."""
    found: ndarray = np.where(value <= 0.0031308, 12.92 * value, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
    return found


def srgb_to_linear(value: Float[ndarray, "*shape"]) -> Float[ndarray, "*shape"]:
    """Convert sRGB, 0…1, to linear light (IEC 61966-2-1)."""
    found: ndarray = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return found


def _texels(
    texture: UInt8[ndarray, "height width 4"], wrap: tuple[Wrap, Wrap], uv: Float[ndarray, "place 2"]
) -> Float[ndarray, "place 4"]:
    """Return the texture's nearest values, 0…1."""
    height, width = texture.shape[:2]
    u, v = (_wrapped(uv[:, i], wrap[i]) for i in (0, 1))
    row = np.clip(((1 - v) * height).astype(int), 0, height - 1)
    column = np.clip((u * width).astype(int), 0, width - 1)
    found: ndarray = texture[row, column] / 255
    return found


def _wrapped(value: Float[ndarray, " place"], how: Wrap) -> Float[ndarray, " place"]:
    value = value if how == "clamp" else value % 2.0 if how == "mirror" else value % 1.0
    found: ndarray = np.clip(1 - np.abs(value - 1) if how == "mirror" else value, 0, 1)
    return found
