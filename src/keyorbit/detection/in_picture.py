"""From the square of the input picture that the model was shown to the one that places on the picture are told in."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from keyorbit.detection.input_camera import InputCamera
from keyorbit.geometry.heatmaps import normalize
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.objects.framing import Framing


def in_picture(
    framing: Framing,
    keypoints: Keypoints2D,
    camera: InputCamera | None,
    heatmaps: Float[Tensor, "token side side"] | None,
) -> tuple[Keypoints2D, InputCamera | None, Float[Tensor, "token side side"] | None]:
    """What was found in the square that the model was shown, in the one that places are told in."""
    scale, shift = framing.scale_and_shift
    if keypoints.input_xy is not None:
        keypoints = replace(keypoints, input_xy=keypoints.input_xy * scale + torch.tensor(shift))
    if camera is not None:
        camera = replace(camera, cameras=camera.cameras.zoomed(scale, shift), residual=camera.residual * scale)
    return keypoints, camera, None if heatmaps is None else zoomed_heatmaps(heatmaps, scale, shift)


def zoomed_heatmaps(
    heatmaps: Float[Tensor, "token side side"], scale: float, shift: tuple[float, float]
) -> Float[Tensor, "token side side"]:
    """Heatmaps of a square within another, or around it, at the same size: xy becomes scale · xy + shift."""
    side = heatmaps.shape[-1]
    small = max(1, round(scale * side))
    shrunk = F.interpolate(heatmaps[None], size=(small, small), mode="bilinear", antialias=True)[0]
    left, top = (round(one * side) for one in shift)
    # Padding by less than nothing crops.
    return normalize(F.pad(shrunk, (left, side - left - small, top, side - top - small)))
