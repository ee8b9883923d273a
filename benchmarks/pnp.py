"""The camera of a picture, from where keypoints of known places in space are seen on it (perspective-n-point)."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from keyorbit.detection.input_camera import InputCamera
from keyorbit.geometry.cameras import Cameras

Parameter = Literal["azimuth", "elevation", "roll", "offset", "distance", "zoom", "shift"]
FULL_POSE: tuple[Parameter, ...] = ("azimuth", "elevation", "roll", "offset", "distance")

# Columns of theta, in radians, world units, logarithms, and sides of the picture.
_COLUMNS: dict[Parameter, tuple[int, ...]] = {
    "azimuth": (0,),
    "elevation": (1,),
    "roll": (2,),
    "offset": (3, 4),
    "distance": (5,),
    "zoom": (6,),
    "shift": (7, 8),
}
_MAX_ELEVATION = math.radians(89.0)
_MAX_RATIO = math.log(5.0)
# Nothing is seen better than this share of the side, however small the residuals of a few points come out.
_MIN_NOISE = 1e-4
# Evenly spread over -90°…90°, an elevation has a standard deviation of 52°: near it, the picture says nothing.
_UNKNOWN_STD_DEG = 45.0
# As for Keypoints3D: a residual of this share of the side divides the score by e.
_ERROR_SCALE = 0.05
# Half of the keypoints this far off fix no camera, however well its cost is curved.
_MAX_ERROR = 0.15
# The median length of a 2D normal error of standard deviation 1.
_MEDIAN_LENGTH = math.sqrt(2 * math.log(2.0))


@dataclass(frozen=True)
class PoseConfig:
    """What is unknown of the camera, and where the search begins.

    free: what is solved for; everything else keeps its convention (azimuth 0, roll 0, looking at the origin) or the
    views' value (distance, field of view). `offset` moves the camera sideways in the world, `shift` and `zoom` are a
    crop of its picture. `FULL_POSE` is the six degrees of freedom of a calibrated camera.
    elevations_deg: first, last and step of the elevations that are tried (0 is not among them: for points in an
    upright plane it is a saddle that no step leaves); azimuth and roll, if free, are tried every 30° and 45°.
    starts: how many of all tried are refined, or a sixteenth of them where that is more.
    """

    free: tuple[Parameter, ...] = ("elevation", "zoom", "shift")
    elevations_deg: tuple[float, float, float] = (-43.0, 82.0, 5.0)
    starts: int = 24


@torch.no_grad()
def solve_input_camera(
    points: Float[Tensor, "*batch keypoint 3"],
    xy: Float[Tensor, "*batch keypoint 2"],
    weights: Float[Tensor, "*batch keypoint"],
    views: Cameras,
    config: PoseConfig | None = None,
) -> InputCamera:
    """The camera that sees world points at xy (unit square of the picture), some of which may be wrong.

    views: cameras of the same world; field of view, distance from the origin and projection of the first are the
    picture's as well, as far as they are not free. weights ≥ 0 multiply the squared error; in [0, 1] if the score is
    to mean anything.

    Levenberg–Marquardt on the Cauchy cost (iteratively reweighted least squares; Holland & Welsch 1977) from the best
    of many starts, the scale falling to 2.4 times the noise that the median residual tells. The standard deviation is
    Huber's for M-estimators (Huber 1981, equation 6.5), with one normal distribution per distinct minimum, weighted
    by its likelihood (Laplace's approximation). Never raises for points that do not fix a camera: see `InputCamera`.
    Raises ValueError when the elevation is not free.
    """
    config = config or PoseConfig()
    if "elevation" not in config.free:
        raise ValueError("an input camera is solved for its elevation: name it in PoseConfig.free")
    columns = [c for name, indices in _COLUMNS.items() if name in config.free for c in indices]
    data = _data(points, xy, weights, views)
    theta = _starts(data, config)
    for fixed in (0.1, 0.03):
        theta = _descend(theta, data, columns, torch.full_like(data.xy[:, :1, 0, 0], fixed))
    for _ in range(2):
        scale = (2.4 * _noise(theta, data)).clamp(2e-3, 0.1)
        theta = _descend(theta, data, columns, scale)
    return _answer(theta, data, columns, scale, xy, weights)


@dataclass(frozen=True, eq=False)
class _Data:
    """What is seen, in float64 with axes [item start keypoint], and what is known of the camera.

    share: weights divided so that they sum to the effective number of keypoints, (Σw)²/Σw².
    """

    points: Tensor
    xy: Tensor
    share: Tensor
    focal: float
    distance: float
    orthographic: bool


def _data(points: Tensor, xy: Tensor, weights: Tensor, views: Cameras) -> _Data:
    usable = points.isfinite().all(-1) & xy.isfinite().all(-1) & weights.isfinite()
    clean = [torch.where(usable[..., None], x, 0).double().reshape(-1, 1, *x.shape[-2:]) for x in (points, xy)]
    weight = torch.where(usable, weights, 0).double().reshape(-1, 1, weights.shape[-1])
    share = weight * weight.sum(-1, keepdim=True) / weight.square().sum(-1, keepdim=True).clamp_min(1e-30)
    distance = float(torch.linalg.vector_norm(views.centers[0].double()))
    return _Data(clean[0], clean[1], share, float(views.intrinsics[0, 0, 0]), distance, views.orthographic)


def _matrices(theta: Tensor, data: _Data) -> tuple[Tensor, Tensor, Tensor]:
    """Rotation [… 3 3], translation [… 3] and intrinsics [… 3 3] for parameters theta [… 9]."""
    azimuth, elevation, roll, x, y, distance, zoom, shift_x, shift_y = theta.unbind(-1)
    (sa, se, sr), (ca, ce, cr) = ([f(angle) for angle in (azimuth, elevation, roll)] for f in (torch.sin, torch.cos))
    zero, one = torch.zeros_like(azimuth), torch.ones_like(azimuth)
    right = torch.stack([-sa, ca, zero], -1)
    down = torch.stack([se * ca, se * sa, -ce], -1)
    inward = -torch.stack([ce * ca, ce * sa, se], -1)
    cr, sr = cr[..., None], sr[..., None]
    rotation = torch.stack([cr * right + sr * down, cr * down - sr * right, inward], -2)
    translation = torch.stack([x, y, data.distance * distance.exp()], -1)
    focal = data.focal * zoom.exp()
    rows = [[focal, zero, 0.5 + shift_x], [zero, focal, 0.5 + shift_y], [zero, zero, one]]
    return rotation, translation, torch.stack([torch.stack(row, -1) for row in rows], -2)


def _project(theta: Tensor, data: _Data) -> Tensor:
    """Where the cameras theta [item start 9] see the points: [item start keypoint 2]."""
    rotation, translation, intrinsics = _matrices(theta, data)
    place = (rotation[..., None, :, :] * data.points[..., None, :]).sum(-1) + translation[..., None, :]
    depth = torch.ones_like(place[..., 2:]) if data.orthographic else place[..., 2:].clamp_min(0.05 * data.distance)
    return place[..., :2] / depth * intrinsics[..., None, :1, 0] + intrinsics[..., None, :2, 2]


def _starts(data: _Data, config: PoseConfig) -> Tensor:
    """The best of a grid of angles, each with the crop or place that medians suggest: [item start 9]."""
    low, high, step = config.elevations_deg
    axes = [
        torch.arange(0.0, 360.0, 30.0) if "azimuth" in config.free else torch.zeros(1),
        torch.arange(low, high + step / 2, step),
        torch.arange(0.0, 360.0, 45.0) if "roll" in config.free else torch.zeros(1),
    ]
    angles = torch.deg2rad(torch.cartesian_prod(*axes).to(data.xy))
    theta = torch.zeros(len(data.xy), len(angles), 9).to(data.xy)
    theta[..., :3] = angles
    seen = _project(theta, data)
    ratio, shift = _median_fit(seen, data)
    if "zoom" in config.free:
        theta[..., 6] = ratio
    elif "distance" in config.free:
        theta[..., 5] = -ratio
    if "shift" in config.free:
        theta[..., 7:] = shift
    elif "offset" in config.free:
        unit = 1.0 if data.orthographic else data.distance * theta[..., 5:6].exp()
        theta[..., 3:5] = shift * unit / data.focal
    cost = _cost(_residual(theta, data), data, torch.full_like(data.xy[:, :1, 0, 0], 0.1))
    count = min(max(config.starts, cost.shape[1] // 16), cost.shape[1])
    best = cost.topk(count, largest=False).indices
    return theta.gather(1, best[..., None].expand(-1, -1, 9))


def _median_fit(seen: Tensor, data: _Data) -> tuple[Tensor, Tensor]:
    """Logarithm of the zoom [item start] and shift [item start 2] that bring seen nearest to xy, by medians."""
    share = data.share[..., None, :]
    middles, spreads = [], []
    for places in (seen, data.xy):
        middle = _weighted_median(places.mT, share)
        middles.append(middle)
        length = torch.linalg.vector_norm(places - middle[..., None, :], dim=-1)
        spreads.append(_weighted_median(length, data.share).clamp_min(1e-6))
    ratio = (spreads[1] / spreads[0]).log().clamp(-_MAX_RATIO, _MAX_RATIO)
    return ratio, middles[1] - 0.5 - (middles[0] - 0.5) * ratio[..., None].exp()


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """Smallest of the values along the last axis that holds half of the weight with those below it."""
    ordered, order = values.sort(dim=-1)
    reached = weights.expand_as(values).gather(-1, order).cumsum(-1)
    first = (reached >= reached[..., -1:] / 2).to(torch.uint8).argmax(-1)
    return ordered.gather(-1, first[..., None])[..., 0]


def _residual(theta: Tensor, data: _Data) -> Tensor:
    return _project(theta, data) - data.xy


def _cost(residual: Tensor, data: _Data, scale: Tensor) -> Tensor:
    """Cauchy's, half the weighted squared error where that is small: [item start]."""
    square = scale[..., None].square()
    return (data.share * square / 2 * (residual.square().sum(-1) / square).log1p()).sum(-1)


def _jacobian(theta: Tensor, data: _Data, columns: list[int]) -> Tensor:
    """Derivatives of the projections by the free parameters: [item start keypoint 2 column]."""
    units = torch.eye(9, dtype=theta.dtype, device=theta.device)[columns]

    def moved(unit: Tensor) -> Tensor:
        along: Tensor = torch.func.jvp(lambda t: _project(t, data), (theta,), (unit.expand_as(theta),))[1]
        return along

    jacobian: Tensor = torch.func.vmap(moved, out_dims=-1)(units)
    return jacobian


def _normal(jacobian: Tensor, weight: Tensor) -> Tensor:
    return einsum(weight, jacobian, jacobian, "i s k, i s k c a, i s k c b -> i s a b")


def _descend(theta: Tensor, data: _Data, columns: list[int], scale: Tensor, steps: int = 12) -> Tensor:
    """Levenberg–Marquardt steps on the Cauchy cost, each kept only where it helps."""
    damping = torch.full_like(theta[..., 0], 1e-3)
    cost = _cost(_residual(theta, data), data, scale)
    for _ in range(steps):
        residual, jacobian = _residual(theta, data), _jacobian(theta, data, columns)
        weight = data.share / (1 + residual.square().sum(-1) / scale[..., None].square())
        normal = _normal(jacobian, weight)
        slope = einsum(weight, jacobian, residual, "i s k, i s k c a, i s k c -> i s a")
        ridge = torch.diag_embed(damping[..., None] * normal.diagonal(dim1=-2, dim2=-1) + 1e-9)
        moved = theta.clone()
        moved[..., columns] -= torch.linalg.solve_ex(normal + ridge, slope[..., None])[0][..., 0]
        moved[..., 1] = moved[..., 1].clamp(-_MAX_ELEVATION, _MAX_ELEVATION)
        moved[..., 5:7] = moved[..., 5:7].clamp(-_MAX_RATIO, _MAX_RATIO)
        moved_cost = _cost(_residual(moved, data), data, scale)
        better = moved_cost <= cost
        theta, cost = torch.where(better[..., None], moved, theta), torch.where(better, moved_cost, cost)
        damping = torch.where(better, damping / 5, damping * 5).clamp(1e-9, 1e6)
    return theta


def _noise(theta: Tensor, data: _Data) -> Tensor:
    """Standard deviation of the places that the median residual of the best start tells: [item 1]."""
    length = torch.linalg.vector_norm(_residual(theta, data), dim=-1)
    return _weighted_median(length, data.share).amin(-1, keepdim=True) / _MEDIAN_LENGTH


def _answer(theta: Tensor, data: _Data, columns: list[int], scale: Tensor, xy: Tensor, weights: Tensor) -> InputCamera:
    residual = _residual(theta, data)
    cost = _cost(residual, data, scale)
    order = cost.argsort(-1)
    theta, residual, cost = _pick(theta, order), _pick(residual, order), _pick(cost, order)
    variance = _noise_variance(residual[:, :1], data, scale, len(columns))
    std = _elevation_std(theta, cost, variance, data, columns)
    length = torch.linalg.vector_norm(residual[:, 0], dim=-1)
    error = _weighted_median(length, data.share[:, 0])
    known = (torch.rad2deg(std) < _UNKNOWN_STD_DEG) & (error < _MAX_ERROR)
    weight = torch.nan_to_num(weights.double()).clamp(0, 1).reshape(-1, weights.shape[-1])
    score = torch.where(known, weight.mean(-1) * (-(error / _ERROR_SCALE).square()).exp(), 0)
    inliers = known[:, None] & (data.share[:, 0] > 0) & (length <= 3 * variance.sqrt())
    std = torch.where(known, torch.rad2deg(std), math.inf)
    rotation, translation, intrinsics = _matrices(theta[:, 0], data)
    rigid = torch.eye(4).to(rotation).repeat(len(rotation), 1, 1)
    rigid[:, :3, :3], rigid[:, :3, 3] = rotation, translation
    lead, dtype = xy.shape[:-2], xy.dtype
    return InputCamera(
        Cameras(rigid.to(dtype), intrinsics.to(dtype), data.orthographic),
        torch.rad2deg(torch.atan2(theta[:, 0, 0].sin(), theta[:, 0, 0].cos())).reshape(lead).to(dtype),
        torch.rad2deg(theta[:, 0, 1]).reshape(lead).to(dtype),
        std.reshape(lead).to(dtype),
        length.reshape(xy.shape[:-1]).to(dtype),
        inliers.reshape(xy.shape[:-1]),
        score.reshape(lead).to(dtype),
    )


def _pick(values: Tensor, order: Tensor) -> Tensor:
    """values [item start …] in the order [item start]."""
    return values[torch.arange(len(order), device=order.device)[:, None], order]


def _noise_variance(residual: Tensor, data: _Data, scale: Tensor, unknowns: int) -> Tensor:
    """Variance of a place's coordinate, as an estimate with Cauchy's weights feels it: [item 1]; inf if untold."""
    square = residual.square().sum(-1)
    weight = 1 / (1 + square / scale[..., None].square())
    count = data.share.sum(-1).clamp_min(1e-30)
    freedom = 2 * count - unknowns
    influence = (data.share * weight.square() * square).sum(-1) / freedom.clamp_min(1)
    # Of the influence's slope along and across the residual, the mean is weight².
    slope = ((data.share * weight.square()).sum(-1) / count).clamp_min(1e-15)
    slope_variance = (data.share * (weight.square() - slope[..., None]).square()).sum(-1) / count
    correction = 1 + unknowns / (2 * count) * slope_variance / slope.square()
    variance = (correction.square() * influence / slope.square()).clamp_min(_MIN_NOISE**2)
    return torch.where(freedom >= 2, variance, math.inf)


def _elevation_std(theta: Tensor, cost: Tensor, variance: Tensor, data: _Data, columns: list[int]) -> Tensor:
    """Spread of the elevation about the best start's (the first), in radians: [item]."""
    normal = _normal(_jacobian(theta, data, columns), data.share.expand(theta.shape[0], theta.shape[1], -1))
    # What was known before: as much as of an elevation anywhere in -90°…90°, in radians, and of a crop alike.
    prior = torch.eye(len(columns)).to(normal) * (variance * 12 / math.pi**2)[..., None, None]
    inverse = torch.linalg.inv_ex(normal + prior)[0]
    own = variance * inverse.diagonal(dim1=-2, dim2=-1)[..., columns.index(1)]
    log_volume = -0.5 * torch.linalg.slogdet(normal + prior)[1]
    elevation = theta[..., 1]
    apart = (elevation[..., :, None] - elevation[..., None, :]).abs() > math.radians(1.0)
    # A start that ended where a better one did is the same minimum.
    twin = (~apart).tril(-1).any(-1)
    chance = (log_volume - cost / variance).masked_fill(twin, -math.inf)
    share = (chance - chance[:, :1]).exp()
    spread = share * (own + (elevation - elevation[:, :1]).square())
    std = (spread.sum(-1) / share.sum(-1)).sqrt()
    return torch.nan_to_num(std, nan=math.inf)
