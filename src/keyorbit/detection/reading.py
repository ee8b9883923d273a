"""From heatmaps to keypoints: places and scores in the views and the input picture, and points in space."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.detection.choices import Peak, Space
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.peaks import peak_score, peak_xy
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.geometry.alignment import Form
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.constellation import Reading, read_constellation, upright
from keyorbit.geometry.constellation_config import ConstellationConfig
from keyorbit.geometry.evidence import read_evidence
from keyorbit.geometry.heatmaps import gaussian, normalize
from keyorbit.geometry.hull import search_volume
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D

# Heat, against a flat map's, that a view has everywhere: where it sees nothing its place is the common one.
_A_LITTLE = 0.01


@dataclass(frozen=True, eq=False)
class Found:
    """What was read off one object's heatmaps, on the CPU.

    Attributes:
        flat: in the views, and on the input picture.
        points: in space; None without cameras.
        reading: how the object fits the tokens' constellation; None where it was not read by one.
    """

    flat: Keypoints2D
    points: Keypoints3D | None = None
    reading: Reading | None = None


@dataclass(frozen=True)
class KeypointReader:
    """Reads one detector's tokens.

    Attributes:
        tokens: which.
        config: how.
        shape: of the discovery: how the constellation is used.
        peak: that is read.
    """

    tokens: Tokens
    config: DetectConfig
    shape: ConstellationConfig
    peak: Peak

    def read(
        self,
        everything: Float[Tensor, "view token_and_helper side side"],
        condition: Float[Tensor, "token side side"] | None,
        distance: Float[Tensor, "view height width"],
        cameras: Cameras | None,
    ) -> Found:
        """The keypoints in the views, and in space where there are cameras.

        Raises:
            InputError: a constellation is asked for, which the tokens do not have.
        """
        heatmaps = everything[:, : len(self.tokens)]
        if cameras is None:
            return Found(self._flat(heatmaps, condition, None))
        space, (middle, radius) = self._space(cameras), search_volume(cameras)
        # A user's world may have its origin anywhere. Far from it, single precision is too coarse for the search.
        origin = middle if middle.norm() > radius else torch.zeros_like(middle)
        here = cameras.about(origin).to(heatmaps.device)
        if space == "triangulation":
            keypoints = self._flat(heatmaps, condition, cameras)
            return Found(keypoints, keypoints.triangulate())
        around, reading = None, None
        if space == "evidence":
            xyz = read_evidence(heatmaps, here, distance).xyz
        else:
            info = self.tokens.info
            places = torch.tensor(info.places).to(heatmaps)
            form = Form.from_rows(torch.tensor(info.form).to(heatmaps)) if info.form else None
            count = len(self.tokens)
            reading = read_constellation(everything, here, places, distance, self.shape, count=count, form=form)
            xyz = reading.xyz
            around = here.project(xyz) if self.config.peak is None else None
        keypoints = self._flat(heatmaps, condition, cameras, around)
        found = None if reading is None else reading.cpu()
        return Found(keypoints, keypoints.lift(xyz.cpu() + origin.cpu()), found)

    def _space(self, cameras: Cameras) -> Space:
        able = len(self.tokens.info.places) == len(self.tokens) + len(self.tokens.helpers)
        if self.config.space == "constellation" and not able:
            raise InputError('these tokens have no constellation: discover them with method = "constellation"')
        return self.config.space or ("constellation" if able and upright(cameras) else "evidence")

    def _flat(
        self, heatmaps: Tensor, condition: Tensor | None, cameras: Cameras | None, around: Tensor | None = None
    ) -> Keypoints2D:
        """Places and scores in the views, ``around`` the places [view token 2] that are given, and in the input."""
        looked, peak, window = heatmaps, self.peak, self.config.window
        if around is not None:
            looked = near(heatmaps, around, self.config.nearness)
        return Keypoints2D(
            peak_xy(looked, peak, window).cpu(),
            peak_score(heatmaps, looked, window).cpu(),
            None if cameras is None else cameras.to("cpu"),
            None if condition is None else peak_xy(condition, peak, window).cpu(),
            None if condition is None else peak_score(condition, condition, window).cpu(),
        )


def near(
    heatmaps: Float[Tensor, "view token height width"], around: Float[Tensor, "view token 2"], nearness: float
) -> Float[Tensor, "view token height width"]:
    """Heatmaps times a Gaussian about given places, of standard deviation ``nearness`` in sides of the view."""
    height, width = heatmaps.shape[-2:]
    window = gaussian(around, height, width, nearness * width)
    return normalize((heatmaps + _A_LITTLE / (height * width)) * window)
