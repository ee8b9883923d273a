"""Cameras and layouts of the views of published multi-view diffusion models.

All rigs are given in one frame, whatever the source uses: +z up, the view of azimuth 0 on the +x side, azimuth positive
to that camera's right (anticlockwise from above), elevation positive upwards. All these models count azimuth in that
direction; the sign was read from each model's camera code or stored matrices.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from keyorbit.geometry.cameras import ZERO123PLUS_DISTANCE, Cameras, orbit_cameras
from keyorbit.geometry.views import Layout, split_views

_AZIMUTHS = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
# version: (elevations of the even and odd views, field of view, distance)
_ZERO123PLUS = {
    "v1.1": ((30.0, -20.0), 49.13, 1.5),
    "v1.2": ((20.0, -10.0), 30.0, ZERO123PLUS_DISTANCE),
}

Frame = Literal["input", "canonical"]


@dataclass(frozen=True)
class Rig:
    """The cameras of one model's views, in the model's order, and the layout of these views.

    Attributes:
        name: name of the model, as :func:`rig` knows it.
        layout: rows and columns of the views.
        tiled: True if the views are tiles of one picture; False if they are items of a batch, and ``layout`` is the
            usual strip.
        azimuth_deg: azimuth of each view, degrees.
        elevation_deg: elevation of each view, degrees.
        azimuth_from: ``input`` if azimuth is relative to the input view; ``canonical`` if it is the object's own.
        elevation_from: ``input`` if elevation is relative to the input view; ``canonical`` if it is above the ground.
        source: where the numbers come from.
        note: what a user of the rig has to know, such as the unit of its world.
        roll_deg: rotation about the viewing direction, degrees. Default 0.
        orthographic: default False.
        fov_deg: field of view, degrees. Default 30. Ignored if orthographic.
        distance: from the origin, world units. Default Zero123++ v1.2's. For orthographic cameras it only orders
            depths.
        side: world units that an orthographic view spans. Default 1.
        scale_known: whether world units are the source's. If False, 3D is correct up to one common scale, and ``note``
            names the unit.
        fov_known: whether the field of view is the source's.

    Raises:
        ValueError: the numbers of cameras and of tiles differ.
    """

    name: str
    layout: Layout
    tiled: bool
    azimuth_deg: tuple[float, ...]
    elevation_deg: tuple[float, ...]
    azimuth_from: Frame
    elevation_from: Frame
    source: str
    note: str
    roll_deg: tuple[float, ...] = (0.0,)
    orthographic: bool = False
    fov_deg: float = 30.0
    distance: float = ZERO123PLUS_DISTANCE
    side: float = 1.0
    scale_known: bool = True
    fov_known: bool = True

    def __post_init__(self) -> None:
        if len(self.cameras) != self.layout.num_views:
            raise ValueError(
                f"{len(self.cameras)} cameras do not fill {self.layout.rows} rows × {self.layout.cols} columns: "
                f"give one azimuth per view"
            )

    @cached_property
    def cameras(self) -> Cameras:
        """One camera per view, in the model's order."""
        return orbit_cameras(
            self.azimuth_deg,
            self.elevation_deg,
            self.distance,
            self.fov_deg,
            self.orthographic,
            self.side,
            roll_deg=self.roll_deg,
        )

    def views(self, x: Shaped[Tensor, "batch *axes height width"]) -> Shaped[Tensor, "object view *axes h w"]:
        """Arrange the model's output as one item for each object, with an axis of views.

        Args:
            x: [batch, …, height, width]. Each item is a tiled picture of one object; or, if the views are not tiled,
                the views of the first object are followed by those of the next.

        Raises:
            ValueError: x does not divide into whole views or objects.
        """
        if self.tiled:
            return rearrange(split_views(x, self.layout), "b ... v h w -> b v ... h w")
        count = self.layout.num_views
        if x.shape[0] % count:
            raise ValueError(f"a batch of {x.shape[0]} does not divide into objects of {count} views")
        return rearrange(x, "(b v) ... -> b v ...", v=count)


_SIX = (0.0, 45.0, 90.0, 180.0, 270.0, 315.0)
_ZERO123PLUS_AZIMUTHS = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
# A 35 mm lens before a 32 mm sensor: 2 atan(16/35), as Zero-1-to-3 and its descendants render.
_BLENDER_FOV = 49.13434264120263

_RIGS = (
    Rig(
        "zero123plus-v1.1",
        Layout(3, 2),
        tiled=True,
        azimuth_deg=_ZERO123PLUS_AZIMUTHS,
        elevation_deg=(30.0, -20.0) * 3,
        azimuth_from="input",
        elevation_from="canonical",
        fov_deg=49.13,
        distance=1.5,
        scale_known=False,
        source="github.com/SUDO-AI-3D/zero123plus, README (angles) and issue 68 (field of view)",
        note="the distance is not documented: the unit is 2/3 of it",
    ),
    Rig(
        "zero123plus-v1.2",
        Layout(3, 2),
        tiled=True,
        azimuth_deg=_ZERO123PLUS_AZIMUTHS,
        elevation_deg=(20.0, -10.0) * 3,
        azimuth_from="input",
        elevation_from="canonical",
        source="github.com/SUDO-AI-3D/zero123plus, README (angles, field of view) and issue 73 (distance)",
        note="the object is in a sphere of radius 0.5",
    ),
    Rig(
        "instantmesh",
        Layout(3, 2),
        tiled=True,
        azimuth_deg=_ZERO123PLUS_AZIMUTHS,
        elevation_deg=(20.0, -10.0) * 3,
        azimuth_from="input",
        elevation_from="canonical",
        distance=4.0,
        source="github.com/TencentARC/InstantMesh, src/utils/camera_util.py get_zero123plus_input_cameras",
        note="Zero123++ v1.2 in a world 2.14 times as large: the object is in about [-1, 1] on each axis",
    ),
    Rig(
        "syncdreamer",
        Layout(1, 16),
        tiled=False,
        azimuth_deg=tuple(22.5 * i for i in range(16)),
        elevation_deg=(30.0,) * 16,
        azimuth_from="input",
        elevation_from="canonical",
        fov_deg=_BLENDER_FOV,
        distance=1.5,
        source="github.com/liuyuan-pal/SyncDreamer, blender_script.py and meta_info/camera-16.pkl",
        note="the longest side of the object's box is 1; view 0 has the input's azimuth, not its elevation",
    ),
    Rig(
        "wonder3d",
        Layout(1, 6),
        tiled=False,
        azimuth_deg=_SIX,
        elevation_deg=(0.0,) * 6,
        azimuth_from="input",
        elevation_from="input",
        orthographic=True,
        scale_known=False,
        source="github.com/xxlong0/Wonder3D, README and mvdiffusion/data/fixed_poses",
        note=(
            "views front, front_right, right, back, left, front_left; z is the input picture's up, not gravity's; the "
            "scale is the input's crop: the unit is a view's side (rendered for training with side 1.35 and a box "
            "of diagonal 1)"
        ),
    ),
    Rig(
        "era3d",
        Layout(1, 6),
        tiled=False,
        azimuth_deg=_SIX,
        elevation_deg=(0.0,) * 6,
        azimuth_from="input",
        elevation_from="canonical",
        orthographic=True,
        scale_known=False,
        source="github.com/pengHTYX/Era3D, instant-nsr-pl/datasets/fixed_poses; arXiv 2405.11616",
        note=(
            "views as Wonder3D's, at elevation 0 whatever the input's; the scale is not documented (issue 29): the "
            "unit is a view's side"
        ),
    ),
    Rig(
        "mvdream",
        Layout(1, 4),
        tiled=False,
        azimuth_deg=(0.0, 90.0, 180.0, 270.0),
        elevation_deg=(15.0,) * 4,
        azimuth_from="canonical",
        elevation_from="canonical",
        fov_deg=40.0,
        distance=0.5 / math.tan(math.radians(20.0)),
        scale_known=False,
        fov_known=False,
        source="github.com/bytedance/MVDream, mvdream/camera_utils.py get_camera, and issues 12 and 20",
        note=(
            "trained with fields of view of 15° to 60° and not told which: the 40° of MVDream-threestudio's evaluation "
            "stand in; distances were normalised away: the unit is a view's side at the origin; scripts/t2i.py "
            "starts at azimuth 90°; elevations of 0° to 30° can be asked for"
        ),
    ),
    Rig(
        "mv-adapter",
        Layout(1, 6),
        tiled=False,
        azimuth_deg=_SIX,
        elevation_deg=(0.0,) * 6,
        azimuth_from="canonical",
        elevation_from="canonical",
        orthographic=True,
        distance=1.8,
        side=1.1,
        source="github.com/huanngzh/MV-Adapter, scripts/inference_i2mv_sd.py, and issue 42 (azimuth)",
        note=(
            "the object is in [-0.5, 0.5] on each axis; view 0 is its front wherever the input picture was taken from; "
            "trained at these angles, though others can be asked for (issue 61)"
        ),
    ),
)


def known_rigs() -> dict[str, Rig]:
    """Return every rig that :func:`rig` knows, by name."""
    return {entry.name: entry for entry in _RIGS}


def rig(name: str) -> Rig:
    """Return the views of a published model, by name, such as ``wonder3d``.

    Raises ValueError for an unknown name.
    """
    known = known_rigs()
    if name not in known:
        raise ValueError(f"no views are known for {name!r}: use one of {', '.join(known)}")
    return known[name]


def zero123plus_cameras(version: str = "v1.2") -> Cameras:
    """Return the six cameras of a Zero123++ model: azimuth 30°, 90°, …, 330° from the input view (azimuth 0°).

    v1.2: elevation alternates 20°/−10°, field of view 30°, distance 0.5/tan 15° (an object in a sphere of radius 0.5).
    v1.1: elevation alternates 30°/−20°, field of view 49.13°; its distance is not documented and 1.5 is assumed, so
    that 3D points are correct up to scale. Source: zero123plus README and issue #73. Raises ValueError for an unknown
    version.
    """
    if version not in _ZERO123PLUS:
        raise ValueError(f"no cameras are known for Zero123++ {version!r}: use one of {sorted(_ZERO123PLUS)}")
    (even, odd), fov, distance = _ZERO123PLUS[version]
    return orbit_cameras(_AZIMUTHS, (even, odd) * 3, distance, fov)
