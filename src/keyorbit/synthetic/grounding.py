"""Phrases that name a place on an object, and where that place is in its pictures.

Published text-to-image models know what "the left arm of a chair" is from a billion captions. The tiny model has
thousands of objects, so its attention is told: a phrase's token is to attend where the phrase is true (TokenCompose,
Wang et al., CVPR 2024, does the same with nouns and segmentation masks). Only the names and the shapes of an object's
parts are used, never its landmarks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.synthetic.render import object_surface, seen_places
from keyorbit.synthetic.samples import SampleSpec, in_parallel, scene_of
from keyorbit.synthetic.shapes import rotation_about
from keyorbit.synthetic.training_data import Made, made_once, recipe_of

NOTHING = 255
_AXES = (("front", "rear"), ("left", "right"), ("upper", "lower"))
_WHOLE, _MIDDLE = 0.1, 0.2  # shares of phrases about the whole object, and about the middle of something
_REACH = 0.04  # how far from the utmost place, in object sizes, a phrase is e times less true
_SIDES = 0.12  # a part that is shorter than this along an axis has no two ends to tell apart


@dataclass(frozen=True, eq=False)
class Places:
    """What the pixels of the input picture (view 0) and the six views show.

    part: the number of the part among the item's ``names``, :data:`NOTHING` beside the object; position: of the surface
    in the object's own frame (+x front, +y left, +z up), 0…255 for -0.5…0.5. nouns: what each item is.
    """

    part: UInt8[Tensor, "item view side side"]
    position: UInt8[Tensor, "item view side side 3"]
    names: list[list[str]]
    nouns: list[str]


@dataclass(frozen=True)
class _ObjectPlaces:
    part: UInt8[np.ndarray, "view side side"]
    position: UInt8[np.ndarray, "view side side 3"]
    names: list[str]


def object_places(spec: SampleSpec) -> _ObjectPlaces:
    """The places that the pictures of :func:`keyorbit.synthetic.samples.make_sample` show, ``spec.size`` a side."""
    scene = scene_of(spec)
    parts = scene.thing.parts
    face, at = seen_places(object_surface(scene.thing), scene.all_cameras, spec.size)
    back = rotation_about("z", scene.azimuth_deg)  # the scene is turned by as much the other way
    owner = np.repeat(np.arange(len(parts)), [len(part.shape.faces) for part in parts])
    part = np.where(face >= 0, owner[face], NOTHING).astype(np.uint8)
    position = np.clip(np.round((at @ back.T + 0.5) * 255), 0, 255).astype(np.uint8)
    return _ObjectPlaces(part, position, [part.name for part in parts])


def render_places(specs: list[SampleSpec], workers: int, path: Path) -> Places:
    """The places of all objects, kept in ``path``: a run that is resumed finds them there.

    Raises:
        InputError: ``path`` holds the places of others.
    """

    def make() -> Made:
        made = list(in_parallel(object_places, specs, workers))
        tensors = {
            "part": torch.from_numpy(np.stack([places.part for places in made])),
            "position": torch.from_numpy(np.stack([places.position for places in made])),
        }
        nouns = [CATEGORIES[spec.category].noun for spec in specs]
        return tensors, {"names": [places.names for places in made], "nouns": nouns}

    tensors, metadata = made_once(path, "the places of", recipe_of(specs), make)
    return Places(tensors["part"], tensors["position"], metadata["names"], metadata["nouns"])


def draw_phrases(
    places: Places, item: int, count: int, generator: torch.Generator
) -> tuple[list[str], Float[Tensor, "phrase view side side"]]:
    """``count`` random phrases about an object, and how true each is of every pixel: 1 at the utmost place, else less.

    "front left seat" is truest at the seat's corner and falls off within 4 % of the object's size; "middle seat" is
    true round the seat's middle, "seat" everywhere on it. Sides are the object's own.
    """
    part, position = places.part[item], places.position[item].float() / 255 - 0.5
    shown = [int(p) for p in torch.unique(part) if p != NOTHING]
    noun, phrases, truths = places.nouns[item], [], []
    for _ in range(count):
        chance = torch.rand(3, generator=generator)
        which = shown[int(torch.randint(len(shown), (1,), generator=generator))]
        if chance[0] < _WHOLE:
            on, name = part != NOTHING, noun
        else:
            on, name = part == which, places.names[item][which]
            name = f"{name} of the {noun}" if chance[2] < 0.5 else name
        low, high = position[on].amin(0), position[on].amax(0)
        if chance[1] < _MIDDLE:
            middle = (low + high) / 2
            nearness = -(position - middle).square().sum(-1) / (2 * _REACH**2)
            phrases.append(f"middle {name}")
            truths.append(_truth(nearness, on))
            continue
        sides = torch.randint(-1, 2, (3,), generator=generator)
        sides = torch.where(high - low > _SIDES, sides, 0)
        words = [_AXES[axis][0 if side > 0 else 1] for axis, side in enumerate(sides.tolist()) if side]
        direction = sides.float() / sides.float().norm().clamp_min(1)
        phrases.append(" ".join([*words, name]))
        truths.append(_truth(position @ direction / _REACH, on))
    return phrases, torch.stack(truths)


def grounding_loss(
    maps: Float[Tensor, "item view phrase side side"],
    truth: Float[Tensor, "item phrase view fine fine"],
    temperature: float = 0.1,
) -> Float[Tensor, " item"]:
    """KL divergence from where each phrase is true to where its token attends, in nats, mean over what is seen.

    ``maps`` are logits; a view in which a phrase is nowhere nearly true (below a fifth) does not count.
    """
    side = maps.shape[-1]
    truth = rearrange(truth, "i p v h w -> i v p h w")
    seen = truth.amax((-2, -1)) > 0.2
    wanted = reduce(truth, "i v p (h a) (w b) -> i v p (h w)", "sum", h=side, w=side)
    wanted = wanted / wanted.sum(-1, keepdim=True).clamp_min(1e-6)
    found = F.log_softmax(maps.flatten(-2) / temperature, dim=-1)
    divergence = (torch.special.xlogy(wanted, wanted) - wanted * found).sum(-1)
    mean: Tensor = (divergence * seen).sum((1, 2)) / seen.sum((1, 2)).clamp_min(1)
    return mean


def _truth(score: Float[Tensor, "view side side"], on: Tensor) -> Float[Tensor, "view side side"]:
    """exp of the score below its greatest value on the part, 0 beside the part."""
    return torch.where(on, (score - score[on].amax()).exp(), 0.0)
