"""What kind of object six views show, and how it is turned, by their outlines alone.

Views are compared, outline by outline, with true renderings of known objects at many headings: the nearest of these
says the kind and the heading. Colours have no part in it, as a generated object's need not be true; and no model has,
so that two models are judged by the same eyes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.synthetic.objects import make_object
from keyorbit.synthetic.render import object_surface, seen_places
from keyorbit.synthetic.shapes import rotation_about

SIDE = 32
# Neither objects of training (10⁹ on), nor of data sets (below 10⁹), nor of the probe (2·10⁹ on).
_KNOWN = 3 * 10**9


@dataclass(frozen=True, eq=False)
class Outlines:
    """Outlines of the six views of known objects; kind: of each, its number among ``names``. azimuth: degrees."""

    masks: Bool[Tensor, "known view side side"]
    kind: tuple[int, ...]
    azimuth: tuple[float, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Likeness:
    """What views look like: the kind, its heading in degrees, and the mean intersection over union of outlines."""

    kind: str
    azimuth_deg: float
    overlap: float


def known_outlines(names: Sequence[str], objects: int = 12, headings: int = 24) -> Outlines:
    """Outlines of so many procedural objects of each kind at so many headings."""
    masks, kind, azimuth = list[ndarray](), list[int](), list[float]()
    cameras = zero123plus_cameras("v1.2")
    for number, name in enumerate(names):
        for i in range(objects):
            mesh = object_surface(make_object(name, _KNOWN + i))
            for heading in np.arange(headings) * (360 / headings):
                turn = np.eye(4)
                turn[:3, :3] = rotation_about("z", -heading)
                turned = mesh.mesh.copy().apply_transform(turn)
                masks.append(seen_places(type(mesh)(turned, mesh.face_colors), cameras, SIDE)[0] >= 0)
                kind.append(number)
                azimuth.append(float(heading))
    return Outlines(torch.from_numpy(np.stack(masks)), tuple(kind), tuple(azimuth), tuple(names))


def likeness(masks: Bool[Tensor, "view height width"], known: Outlines) -> Likeness:
    """The known object whose outlines are most like these, by the mean over the views of intersection over union."""
    small = F.adaptive_avg_pool2d(masks.float(), known.masks.shape[-1]) >= 0.5
    both = (small & known.masks).sum((-2, -1))
    either = (small | known.masks).sum((-2, -1))
    overlap: Float[Tensor, " known"] = (both / either.clamp_min(1)).mean(1)
    best = int(overlap.argmax())
    return Likeness(known.names[known.kind[best]], known.azimuth[best], float(overlap[best]))


def turned_by(first_deg: float, second_deg: float) -> float:
    """The angle between two headings, 0…180 degrees."""
    return abs((first_deg - second_deg + 180) % 360 - 180)
