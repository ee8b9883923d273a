"""Keypoints of one object, in its views and in space."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.triangulation import point_covariance, reprojection_error, robust_triangulate, triangulate
from keyorbit.results import Result, number_of, share, span, told

Chosen = int | slice | Sequence[int] | Tensor

# A reprojection error of this share of the view's side divides the score by e.
_ERROR_SCALE = 0.05
# A view agrees within three standard deviations of the noise, and within these shares of its side at least and at most.
_AGREES = (0.005, 0.1)
# Views of this share of the score have to agree, or the point has score 0.
_QUORUM = 0.5
# A keypoint's noise is its own residuals' and, with the weight of so many degrees of freedom, all keypoints'.
_SHARED_FREEDOM = 6.0
# The median length of a 2D normal error of standard deviation 1.
_MEDIAN_LENGTH = 1.1774


@dataclass(frozen=True, eq=False, repr=False)
class Keypoints3D(Result):
    """Keypoints of one object in world coordinates.

    Attributes:
        xyz: [keypoint 3], world units.
        score: [keypoint] in [0, 1]; 0 for a keypoint that the views do not determine.
        reprojection_error: [keypoint], weighted median over the views, in sides of the view.
        residual: [view keypoint], reprojection error in each view, in sides of the view.
        covariance: [keypoint 3 3] of xyz, world units squared, from the residuals of the views that agree. None in
            files of versions that did not have it.
        visible: [view keypoint], True where the view agrees with the point. The other views mark another position, or
            do not see the point. None in files of versions that did not have it.
    """

    xyz: Float[Tensor, "keypoint 3"]
    score: Float[Tensor, " keypoint"]
    reprojection_error: Float[Tensor, " keypoint"]
    residual: Float[Tensor, "view keypoint"]
    covariance: Float[Tensor, "keypoint 3 3"] | None = None
    visible: Bool[Tensor, "view keypoint"] | None = None

    def __repr__(self) -> str:
        error = float(self.reprojection_error.median()) if len(self) else None
        parts = number_of(len(self), "keypoint"), _scores(self.score), f"reprojection error {share(error)} of the side"
        return told("Keypoints3D", parts)

    def __len__(self) -> int:
        """The number of keypoints."""
        return len(self.xyz)

    def __getitem__(self, which: Chosen) -> "Keypoints3D":
        """Some keypoints: by a number, a slice, a list of numbers or a mask."""
        k = _several(which, len(self))
        covariance = None if self.covariance is None else self.covariance[k]
        visible = None if self.visible is None else self.visible[:, k]
        residual = self.residual[:, k]
        return Keypoints3D(self.xyz[k], self.score[k], self.reprojection_error[k], residual, covariance, visible)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, ready for JSON, without the parts that are None."""
        parts = {name: getattr(self, name) for name in (*_NAMES_3D, "covariance", "visible")}
        return {name: value.tolist() for name, value in parts.items() if value is not None}

    @classmethod
    def from_dict(cls, data: dict[str, Any], dtype: torch.dtype = torch.float32) -> "Keypoints3D":
        """Build keypoints from the result of `to_dict`. Raises ValueError when a part is missing."""
        return Keypoints3D(
            **{name: _tensor(data, name, dtype) for name in _NAMES_3D},
            covariance=_tensor(data, "covariance", dtype) if "covariance" in data else None,
            visible=_tensor(data, "visible", torch.bool) if "visible" in data else None,
        )


@dataclass(frozen=True, eq=False, repr=False)
class Keypoints2D(Result):
    """Keypoints of one object in each of its views.

    Attributes:
        xy: [view keypoint 2], in the unit square of the view.
        score: [view keypoint] in [0, 1].
        cameras: of the views; None where they are not known.
        input_xy: [keypoint 2], the same keypoints on the input picture; None where the model has no pass that reads it.
        input_score: [keypoint] in [0, 1], on the input picture; None with ``input_xy``.

    Raises:
        ValueError: cameras and views differ in number.
    """

    xy: Float[Tensor, "view keypoint 2"]
    score: Float[Tensor, "view keypoint"]
    cameras: Cameras | None = None
    input_xy: Float[Tensor, "keypoint 2"] | None = None
    input_score: Float[Tensor, " keypoint"] | None = None

    def __post_init__(self) -> None:
        if self.cameras is not None and len(self.cameras) != len(self.xy):
            raise ValueError(f"{len(self.cameras)} cameras do not fit {len(self.xy)} views: give one camera per view")

    def __repr__(self) -> str:
        views, keypoints = self.score.shape
        known = [] if self.cameras is None else ["with cameras"]
        known += [] if self.input_xy is None else ["on the input picture too"]
        return told(
            "Keypoints2D", (number_of(views, "view"), number_of(keypoints, "keypoint"), _scores(self.score), *known)
        )

    def __len__(self) -> int:
        """The number of views."""
        return len(self.xy)

    def __getitem__(self, which: Chosen) -> "Keypoints2D":
        """Some views: by a number, a slice, a list of numbers or a mask. The input picture is left out."""
        views = _several(which, len(self))
        cameras = None if self.cameras is None else self.cameras.select(views)
        return Keypoints2D(self.xy[views], self.score[views], cameras)

    def to_pixels(self, height: int, width: int) -> Float[Tensor, "view keypoint 2"]:
        """Convert xy to pixels of a view of height × width, where the centre of pixel i is i: xy·n − 0.5."""
        size = torch.tensor([width, height], dtype=self.xy.dtype, device=self.xy.device)
        return self.xy * size - 0.5

    def triangulate(self, robust: bool = True) -> Keypoints3D:
        """Compute the keypoints in space from all views, weighted by their scores.

        Args:
            robust: default True: views that mark a wrong position lose their weight (see `robust_triangulate`), and the
                point is the least-squares solution of the views that agree. False: all views count.

        Raises:
            ValueError: there are no cameras, or fewer than two views.
        """
        cameras = self._cameras()
        if not robust:
            return self.lift(triangulate(self.xy, cameras, self.score))
        xyz, _ = robust_triangulate(self.xy, cameras, self.score)
        for _ in range(2):
            agreeing, _ = self._agreement(xyz)
            # The little for all views keeps the point where it was if none agrees.
            xyz = triangulate(self.xy, cameras, self.score * (agreeing + 1e-6))
        return self.lift(xyz)

    def lift(self, xyz: Float[Tensor, "keypoint 3"]) -> Keypoints3D:
        """Compute scores, covariances and visibility of points in space from the views.

        The score of a point is its mean score over the views times exp(−(error/0.05)²). The error is the median over
        the views, weighted by the 2D scores and not by their agreement: two views that agree by chance must not look
        certain. The score is 0 where fewer than two views agree, or views with less than half of the total score.
        Variances are those of the residuals over their degrees of freedom, shrunk towards the variance of all
        keypoints. Raises ValueError as `triangulate` does.
        """
        cameras = self._cameras()
        residual = reprojection_error(xyz, self.xy, cameras)
        error = _weighted_median(residual, self.score)
        agreeing, variance = self._agreement(xyz)
        weights = self.score * agreeing
        quorum = (agreeing.sum(0) >= 2) & (weights.sum(0) >= _QUORUM * self.score.sum(0)) & xyz.isfinite().all(-1)
        score = self.score.mean(dim=0).clamp(0, 1) * (-(error / _ERROR_SCALE).square()).exp() * quorum
        return Keypoints3D(xyz, score, error, residual, point_covariance(xyz, cameras, weights, variance), agreeing)

    def _agreement(
        self, xyz: Float[Tensor, "keypoint 3"]
    ) -> tuple[Bool[Tensor, "view keypoint"], Float[Tensor, " keypoint"]]:
        """Return which views agree with the points, and the variance of a position of weight 1, in squared sides."""
        squared = reprojection_error(xyz, self.xy, self._cameras()).square()
        median = _weighted_median(squared.sqrt().flatten()[:, None], self.score.flatten()[:, None])[0]
        # Six views have 12 coordinates of which 3 are fitted; few views make the median too small by that much.
        views = len(self.xy)
        sigma = median / _MEDIAN_LENGTH * (2 * views / (2 * views - 3)) ** 0.5
        for _ in range(2):
            agreeing = (squared.sqrt() <= (3 * sigma).clamp(*_AGREES)) & (self.score > 0)
            freedom = (2 * agreeing.sum(0) - 3).clamp_min(0)
            total = (self.score * squared * agreeing).sum(0)
            shared = total[freedom > 0].sum() / freedom.sum().clamp_min(1)
            mean_score = (self.score * agreeing).sum() / agreeing.sum().clamp_min(1)
            sigma = (shared / mean_score.clamp_min(1e-6)).sqrt()
        variance = (_SHARED_FREEDOM * shared + total) / (_SHARED_FREEDOM + freedom)
        return agreeing, variance.clamp_min(1e-8)

    def _cameras(self) -> Cameras:
        if len(self.xy) < 2:
            raise ValueError("one view does not fix a point in space: triangulate from two or more views")
        if self.cameras is None:
            raise ValueError("keypoints without cameras cannot be triangulated: give Keypoints2D its cameras")
        return self.cameras

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, ready for JSON; None where a part is absent."""
        return {
            "xy": self.xy.tolist(),
            "score": self.score.tolist(),
            "cameras": None if self.cameras is None else self.cameras.to_dict(),
            "input_xy": None if self.input_xy is None else self.input_xy.tolist(),
            "input_score": None if self.input_score is None else self.input_score.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], dtype: torch.dtype = torch.float32) -> "Keypoints2D":
        """Build keypoints from the result of `to_dict`. Raises ValueError when xy or score is missing."""
        cameras = data.get("cameras")
        return Keypoints2D(
            _tensor(data, "xy", dtype),
            _tensor(data, "score", dtype),
            None if cameras is None else Cameras.from_dict(cameras, dtype),
            None if data.get("input_xy") is None else _tensor(data, "input_xy", dtype),
            None if data.get("input_score") is None else _tensor(data, "input_score", dtype),
        )


def _several(which: Chosen, count: int) -> slice | Tensor:
    """An index that keeps the axis.

    Raises:
        IndexError: a number is out of range.
    """
    if isinstance(which, slice):
        return which
    chosen = torch.arange(count)[which if isinstance(which, int | Tensor) else list(which)]
    return chosen[None] if chosen.ndim == 0 else chosen


def _scores(score: Float[Tensor, "*axis"]) -> str:
    return f"scores {span(score.flatten().tolist())}" if score.numel() else ""


_NAMES_3D = ("xyz", "score", "reprojection_error", "residual")


def _tensor(data: dict[str, Any], name: str, dtype: torch.dtype) -> Tensor:
    if name not in data:
        raise ValueError(f"the keypoints lack {name!r}: write them with to_dict")
    return torch.tensor(data[name], dtype=dtype)


def _weighted_median(
    values: Float[Tensor, "view keypoint"], weights: Float[Tensor, "view keypoint"]
) -> Float[Tensor, " keypoint"]:
    """Return the smallest value, per keypoint, such that it and those below it hold half of the weight or more."""
    ordered, order = values.sort(dim=0)
    # Views are few; and torch's own sum along an axis has no fixed order on a GPU.
    reached = torch.stack(list(accumulate(weights.gather(0, order).unbind(0))))
    first = (reached >= reached[-1:] / 2).to(torch.uint8).argmax(dim=0)
    return ordered.gather(0, first[None])[0]
