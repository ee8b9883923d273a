"""More paint, light and backgrounds than ``keyorbit dataset make`` draws, for the recipe's own renderings alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from keyorbit.objects.pictures import GREY
from keyorbit.synthetic.meshes.materials import Appearance, Material, linear_to_srgb
from keyorbit.synthetic.paint import Paint
from keyorbit.synthetic.render import Light, Surface

Colours = Float[ndarray, "*face 3"]


def recoloured(surface: Surface, rng: np.random.Generator) -> Surface:
    """The surface in other colours: its own, pale, dark, of one hue or in any other order, lighter and darker.

    Pale ones are often near the grey that the views stand on: what is grey on grey has to be told by its form too.
    """
    change = _change(rng)
    paints: tuple[Paint, ...] = tuple(
        replace(paint, first=change(paint.first), second=change(paint.second)) for paint in surface.paints
    )
    look = None if surface.look is None else _looking(surface.look, change)
    return replace(surface, face_colors=change(surface.face_colors), paints=paints, look=look)


def _looking(look: Appearance, change: Callable[[ndarray], ndarray]) -> Appearance:
    """A file's textures changed, or else its colours, with those of corners; as sRGB."""
    bare = look.corner_colors is not None  # corners' colours hold their material's then

    def changed(material: Material) -> Material:
        if material.texture is not None:
            texels = material.texture.copy()
            texels[..., :3] = np.round(255 * change(texels[..., :3] / 255))
            return replace(material, texture=texels)
        own = np.clip(np.array(material.color[:3]), 0, 1)
        red, green, blue = (1.0, 1.0, 1.0) if bare else change(linear_to_srgb(own) if material.linear else own)
        return replace(material, color=(red, green, blue, material.color[3]), linear=False)

    corners = look.corner_colors
    if corners is not None:
        plain, linear, factor = (
            np.array([of(material) for material in look.materials])[look.face_material][:, None]
            for of in (lambda m: [m.texture is None], lambda m: [m.linear], lambda m: m.color[:3])
        )
        own = np.clip(corners[..., :3] * factor, 0, 1)
        own = change(np.where(linear, linear_to_srgb(own), own))
        corners = np.concatenate([np.where(plain, own, corners[..., :3]), corners[..., 3:]], -1)
    return replace(look, materials=tuple(changed(material) for material in look.materials), corner_colors=corners)


def _change(rng: np.random.Generator) -> Callable[[ndarray], ndarray]:
    order, gamma = rng.permutation(3), float(rng.uniform(0.5, 1.3))
    way, share = rng.choice(["own", "pale", "dark", "one", "grey"], p=[0.35, 0.2, 0.15, 0.15, 0.15]), rng.uniform(0, 1)
    one = rng.uniform(0.05, 0.95, 3)

    def change(colours: Colours) -> Colours:
        own = np.clip(colours, 0, 1)[..., order] ** gamma
        shade = own.mean(-1, keepdims=True)
        if way == "pale":
            own = own + (0.9 - own) * (0.4 + 0.5 * share)
        elif way == "dark":
            own = own * (0.15 + 0.5 * share)
        elif way == "one":  # the shades of its colours are left
            own = one * (0.5 + 0.5 * shade)
        elif way == "grey":
            own = GREY + (shade - 0.5) * 0.6 * share + 0.3 * (share - 0.5) * np.ones(3)
        result: ndarray = np.clip(own, 0.02, 0.98)
        return result

    return change


def light(rng: np.random.Generator) -> Light:
    """A lamp anywhere above the horizon, in soft light or in hard light."""
    x, y = rng.normal(0, 1.0, 2)
    ambient = float(rng.uniform(0.3, 0.85))
    return Light((float(x), float(y), float(rng.uniform(0.3, 1.2))), ambient, 1.0 - ambient)


def ground(rng: np.random.Generator) -> Float[ndarray, "3"]:
    """White, Zero123++'s grey, any grey, or any colour."""
    kind = rng.random()
    if kind < 0.35:
        return np.ones(3)
    if kind < 0.6:
        return np.full(3, GREY)
    if kind < 0.8:
        return np.full(3, rng.random())
    any_colour: ndarray = rng.random(3)
    return any_colour
