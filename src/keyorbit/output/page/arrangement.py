"""Where the views stand on a page: as their cameras stand round the object."""

import math
from dataclasses import dataclass

from keyorbit.geometry.cameras import Cameras

# Degrees of elevation between two rings, and the most views of a ring that a page has room for.
_APART, _LONGEST, _RINGS = 8.0, 4, 3


@dataclass(frozen=True)
class Place:
    """Where a view stands.

    Attributes:
        row: from 0, the upper ring.
        half: from 0, in halves of a picture's width: rings are staggered where their azimuths are.
        azimuth_deg: of the camera, 0 … 360.
        elevation_deg: of the camera.
    """

    row: int
    half: int
    azimuth_deg: float
    elevation_deg: float

    @property
    def words(self) -> str:
        """Such as "30° round, 20° above"."""
        height = round(self.elevation_deg)
        side = "level" if height == 0 else f"{abs(height)}° {'above' if height > 0 else 'below'}"
        return f"{round(self.azimuth_deg) % 360}° round, {side}"


def rings(cameras: Cameras) -> tuple[Place, ...] | None:
    """Arrange views in rings: the upper one above, each in the order of azimuth.

    A ring is of cameras at about one elevation. Zero123++ has two: views 0, 2 and 4 above, and 1, 3 and 5 below, in the
    gaps. Returns the place of each view; None where the views are not a few short rings, so that a plain grid is
    better.
    """
    away = (-cameras.directions).tolist()
    azimuth = [round(math.degrees(math.atan2(y, x)), 2) % 360 for x, y, _ in away]
    height = [math.degrees(math.asin(max(-1.0, min(1.0, z)))) for _, _, z in away]
    order = sorted(range(len(away)), key=lambda i: -height[i])
    found: list[list[int]] = []
    for i in order:
        if found and height[found[-1][-1]] - height[i] < _APART:
            found[-1].append(i)
        else:
            found.append([i])
    longest = max(len(ring) for ring in found)
    if len(found) > _RINGS or longest > _LONGEST or (len(found) > 1 and longest == 1):
        return None
    first = min(min(azimuth[i] for i in ring) for ring in found)
    places: dict[int, Place] = {}
    for row, ring in enumerate(found):
        ring.sort(key=lambda i: azimuth[i])
        # Half a picture to the right where the ring begins later; shorter rings stand in the middle.
        start = longest - len(ring) + (1 if len(ring) == longest and azimuth[ring[0]] - first > 1 else 0)
        for n, i in enumerate(ring):
            places[i] = Place(row, start + 2 * n, azimuth[i], height[i])
    return tuple(places[i] for i in range(len(away)))
