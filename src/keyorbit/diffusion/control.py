"""What a ControlNet of Zero123++ is used for: views that follow depths, or normal maps of views."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from keyorbit.devices import AUTO
from keyorbit.errors import InputError, one_of
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull_depth import hull_depth
from keyorbit.geometry.views import Layout, merge_views
from keyorbit.objects.pictures import load_image, to_uint8
from keyorbit.values import NotNegative, check_value


@dataclass(frozen=True)
class Control:
    """What the model's ControlNet is used for; see :meth:`Zero123PlusBackend.add_controlnet`.

    Attributes:
        depth: the views follow these depths, tiled as the grid is; or ``"auto"``: those of the visual hull of the
            object's own views, or, where it has none, of views that are generated without the ControlNet before.
            Default None: they follow none.
        normals: the ControlNet is one that makes normal maps of generated views; default False.
        scale: how much the ControlNet's residuals weigh. Default None: as published, 0.75 for depths and 1 for normals.

    Raises:
        InputError: both or none of them are asked for, or the scale is out of range.
    """

    depth: Image.Image | str | None = None
    normals: bool = False
    scale: NotNegative | None = None

    def __post_init__(self) -> None:
        if (self.depth is None) != self.normals:
            raise InputError("a ControlNet is for depths or for normals: choose one of them")
        if isinstance(self.depth, str):
            one_of("depth", self.depth, (AUTO,))
        if self.scale is not None:
            check_value("scale", self.scale, NotNegative)

    @property
    def weight(self) -> float:
        """Of the ControlNet's residuals."""
        return self.scale if self.scale is not None else 1.0 if self.normals else 0.75


def load_depths(path: Path) -> Image.Image:
    """Read a picture of depths for :class:`Control`.

    Raises:
        InputError: as :func:`keyorbit.objects.pictures.load_image`, or it has more than 8 bits a channel.
    """
    picture = load_image(path)
    with Image.open(path) as file:
        mode = file.mode
    if mode[0] in "IF":  # depth has no white: a map in millimetres, scaled as grey is, would be black
        raise InputError(f"{path} does not have 8 bits a channel, but mode {mode}: scale its depths to 0…255")
    return picture.convert("RGB") if picture.mode == "CMYK" else picture


def depth_picture(masks: Bool[Tensor, "view height width"], cameras: Cameras, layout: Layout) -> Image.Image:
    """The depths of the visual hull as the depth ControlNet wants them: RGBA, tiled.

    The nearest point of the object is 0 and the farthest 255, along the viewing direction; what is beside the object is
    transparent. Source: how the ControlNet's authors made their own, zero123plus issue 40.

    Args:
        masks: True on the object.
        cameras: of the views.
        layout: how they are tiled.
    """
    depth = hull_depth(masks, cameras)
    seen = depth[masks] if masks.any() else depth.new_zeros(1)
    grey = ((depth - seen.min()) / (seen.max() - seen.min()).clamp_min(1e-9)).where(masks, 0.0)
    tiled = merge_views(torch.stack([grey, grey, grey, masks.to(grey)]), layout)
    return Image.fromarray(to_uint8(tiled))
