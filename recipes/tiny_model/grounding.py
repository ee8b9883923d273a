"""Phrases that name a place on an object, and where that place is in its pictures.

Published text-to-image models know what "the left arm of a chair" is from a billion captions. The tiny model has
thousands of objects, so its attention is told: a phrase's token is to attend where the phrase is true (TokenCompose,
Wang et al., CVPR 2024, does the same with nouns and segmentation masks). Only the names and the shapes of an object's
parts are used, never its landmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from keyorbit.detection.words import PLACES
from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.synthetic.render import object_surface, seen_places
from keyorbit.synthetic.samples import SampleSpec, in_parallel, scene_of
from keyorbit.synthetic.shapes import rotation_about
from tiny_model.training_data import Made, made_once, recipe_of

NOTHING = 255
_MIDDLE = len(PLACES) - 1
# Shares of phrases about the whole object, about the middle of something, and of those that say what the part is of.
_SHARES = (0.1, 0.2, 0.5)
_REACH = 0.04  # how far from the utmost place, in object sizes, a phrase is e times less true
_SIDES = 0.12  # a part that is shorter than this along an axis has no two ends to tell apart


@dataclass(frozen=True, eq=False)
class Places:
    """What the pixels of the input picture (view 0) and the six views show.

    part: the number of the part of the item, :data:`NOTHING` beside the object; position: of the surface in the
    object's own frame (+x front, +y left, +z up), 0…255 for -0.5…0.5. boxes: the least and the greatest position of
    each part that is seen; of another the least is above the greatest. parts: the number among ``names`` of each
    part, alone and with what it is of; wholes: of each item.
    """

    part: UInt8[Tensor, "item view side side"]
    position: UInt8[Tensor, "item view side side 3"]
    boxes: UInt8[Tensor, "item part 2 3"]
    parts: Int[Tensor, "item part 2"]
    wholes: Int[Tensor, " item"]
    names: tuple[str, ...]

    def to(self, device: torch.device) -> "Places":
        """With all tensors on a device."""
        moved = {key: getattr(self, key).to(device) for key in ("part", "position", "boxes", "parts", "wholes")}
        return replace(self, **moved)

    def named(self) -> Bool[Tensor, " item"]:
        """Of which items something can be said."""
        return (self.boxes[:, :, 0] <= self.boxes[:, :, 1]).all(-1).any(-1)

    def with_meshes(
        self,
        position: UInt8[Tensor, "mesh view side side 3"],
        on: Bool[Tensor, "mesh view side side"],
        kinds: Sequence[str],
    ) -> "Places":
        """With meshes behind the items. Their parts have no names: all that can be said is about the whole."""
        if not len(kinds):
            return self
        part = torch.where(on, 0, NOTHING).to(torch.uint8)
        low = position.where(on[..., None], torch.tensor(255, dtype=torch.uint8)).amin((1, 2, 3))
        high = position.where(on[..., None], torch.tensor(0, dtype=torch.uint8)).amax((1, 2, 3))
        boxes = torch.zeros(len(kinds), *self.boxes.shape[1:], dtype=torch.uint8)
        boxes[:, :, 0] = 255
        boxes[:, 0] = torch.stack([low, high], 1)
        names = tuple(dict.fromkeys((*self.names, *kinds)))
        number = {name: number for number, name in enumerate(names)}
        wholes = torch.tensor([number[kind] for kind in kinds])
        parts = wholes[:, None, None].expand(-1, *self.parts.shape[1:])
        return Places(
            torch.cat([self.part, part]),
            torch.cat([self.position, position]),
            torch.cat([self.boxes, boxes]),
            torch.cat([self.parts, parts]),
            torch.cat([self.wholes, wholes]),
            names,
        )

    def phrases(self) -> list[str]:
        """All that :func:`draw_phrases` can say, in the order of :attr:`Phrases.number`."""
        return [f"{place} {name}".lstrip() for name in self.names for place in PLACES]


@dataclass(frozen=True)
class _ObjectPlaces:
    part: UInt8[np.ndarray, "view side side"]
    position: UInt8[np.ndarray, "view side side 3"]
    names: list[str]


@dataclass(frozen=True, eq=False)
class Phrases:
    """Phrases about items, and what makes them true.

    number: of each among :meth:`Places.phrases`. part: which part each is about, :data:`NOTHING` for the whole object.
    target: of those that are ``middle``, the position of the part's middle; else the direction in which the place lies.
    """

    number: Int[Tensor, "item phrase"]
    part: UInt8[Tensor, "item phrase"]
    middle: Bool[Tensor, "item phrase"]
    target: Float[Tensor, "item phrase 3"]

    def truth(
        self, part: UInt8[Tensor, "item view side side"], position: UInt8[Tensor, "item view side side 3"]
    ) -> Float[Tensor, "item phrase view side side"]:
        """How true each phrase is of every pixel of its item: 1 at the utmost place, 0 beside the part.

        "front left seat" is truest at the seat's corner and falls off within 4 % of the object's size; "middle seat" is
        true round the seat's middle, "seat" everywhere on it. ``part`` and ``position`` as in :class:`Places`.
        """
        about, middle, target = (x[:, :, None, None, None] for x in (self.part, self.middle, self.target))
        on = torch.where(about == NOTHING, part[:, None] != NOTHING, part[:, None] == about)
        at = (position.float() / 255 - 0.5)[:, None]
        near = -(at - target).square().sum(-1) / (2 * _REACH**2)
        score = torch.where(middle, near, (at * target).sum(-1) / _REACH).masked_fill(~on, -torch.inf)
        greatest = score.amax((2, 3, 4), keepdim=True)
        return (score - torch.where(greatest.isfinite(), greatest, 0)).exp()  # of an item without parts nothing is true


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
        most = max((len(places.names) for places in made), default=0)
        tensors = {
            "part": torch.from_numpy(np.stack([places.part for places in made])),
            "position": torch.from_numpy(np.stack([places.position for places in made])),
            "boxes": torch.stack([_boxes(places, most) for places in made]),
        }
        nouns = [CATEGORIES[spec.category].noun for spec in specs]
        return tensors, {"names": [places.names for places in made], "nouns": nouns}

    tensors, metadata = made_once(path, "the places of", f"{recipe_of(specs)} with boxes", make)
    names, parts, wholes = _numbered(metadata["names"], metadata["nouns"])
    return Places(tensors["part"], tensors["position"], tensors["boxes"], parts, wholes, names)


def _numbered(
    parts: list[list[str]], nouns: list[str]
) -> tuple[tuple[str, ...], Int[Tensor, "item part 2"], Int[Tensor, " item"]]:
    """The names of parts, alone and with what they are of, and of whole items; and which of them each item has."""
    number: dict[str, int] = {}
    most = max(map(len, parts), default=0)
    # An item has no more parts than it has; nobody asks for these.
    of_parts = torch.zeros(len(parts), most, 2, dtype=torch.long)
    of_items = torch.zeros(len(parts), dtype=torch.long)
    for item, (own, noun) in enumerate(zip(parts, nouns, strict=True)):
        of_items[item] = number.setdefault(noun, len(number))
        for part, name in enumerate(own):
            for way, said in enumerate((name, f"{name} of the {noun}")):
                of_parts[item, part, way] = number.setdefault(said, len(number))
    return tuple(number), of_parts, of_items


def _boxes(places: _ObjectPlaces, count: int) -> UInt8[Tensor, "part 2 3"]:
    boxes = np.tile(np.array([[255], [0]], np.uint8), (count, 1, 3))
    for part in np.unique(places.part[places.part != NOTHING]):
        seen = places.position[places.part == part]
        boxes[part] = seen.min(0), seen.max(0)
    return torch.from_numpy(boxes)


def draw_phrases(places: Places, items: Int[Tensor, " item"], count: int, generator: torch.Generator) -> Phrases:
    """``count`` random phrases about each of the items, drawn where the places are. Sides are the object's own."""
    shape, device = (len(items), count), places.boxes.device
    low, high = (places.boxes[items].float() / 255 - 0.5).unbind(2)
    shown = (low <= high).all(-1)
    shown = shown | ~shown.any(-1, keepdim=True)  # an item without parts: what is drawn is true nowhere
    which = torch.multinomial(shown.float(), count, replacement=True, generator=generator)
    uniform = torch.rand((*shape, 3), generator=generator, device=device).unbind(-1)
    whole, middle, of_noun = (drawn < share for drawn, share in zip(uniform, _SHARES, strict=True))
    of_all = low.amin(1, keepdim=True), high.amax(1, keepdim=True)  # parts that are not seen change neither
    low, high = (
        torch.where(whole[..., None], outer, own.take_along_dim(which[..., None], 1))
        for outer, own in zip(of_all, (low, high), strict=True)
    )
    sides = torch.randint(-1, 2, (*shape, 3), generator=generator, device=device)
    sides = torch.where((high - low > _SIDES) & ~middle[..., None], sides, 0)
    direction = sides / sides.float().norm(dim=-1, keepdim=True).clamp_min(1)
    target = torch.where(middle[..., None], (low + high) / 2, direction)
    part = places.parts[items].take_along_dim(which[..., None], 1)
    name = torch.where(whole, places.wholes[items][:, None], torch.where(of_noun, part[..., 1], part[..., 0]))
    place = torch.where(middle, _MIDDLE, 9 * (sides[..., 0] + 1) + 3 * (sides[..., 1] + 1) + sides[..., 2] + 1)
    about = torch.where(whole, NOTHING, which).to(torch.uint8)
    return Phrases(len(PLACES) * name + place, about, middle, target)


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
