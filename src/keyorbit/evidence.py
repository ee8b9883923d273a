"""Keypoints read in space: the product of what all views' heatmaps say of a point, on a grid from coarse to fine."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.cameras import Cameras


@dataclass(frozen=True)
class EvidenceConfig:
    """How space is searched.

    points: of the coarse grid, a side; fine: of the grids round the best point so far, a side, ``levels`` of them, each
    ``zoom`` times finer than the one before. outlier: the chance that a view marks something else, which bounds its
    veto. falloff: standard deviation of how far beside the silhouette a point of the object may be seen, in sides.
    Raises ValueError for less than one level.
    """

    points: int = 24
    fine: int = 7
    zoom: float = 2.5
    levels: int = 3
    outlier: float = 0.05
    falloff: float = 0.01

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"{self.levels} fine grids leave a point where the coarse one has it: use 1 or more")


@dataclass(frozen=True, eq=False)
class Evidence:
    """Where the views' evidence has its peak, and how wide the peak is.

    xyz: world units; covariance: of the normalised evidence round the peak; strength: the logarithm of the evidence at
    the peak, nats a view above what flat heatmaps have.
    """

    xyz: Float[Tensor, "*batch keypoint 3"]
    covariance: Float[Tensor, "*batch keypoint 3 3"]
    strength: Float[Tensor, "*batch keypoint"]


def view_evidence(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    xy: Float[Tensor, "*batch view point 2"],
    outlier: float = EvidenceConfig.outlier,
) -> Float[Tensor, "*batch view keypoint point"]:
    """What each view says of points that it sees at xy: log((1 − o)·h·pixels + o), in nats.

    h is the heatmap there (heatmaps sum to 1 over their pixels), o the chance of an outlier; flat heatmaps give 0.
    Differentiable.
    """
    return heat_evidence(relative_heat(heatmaps, xy), outlier)


def relative_heat(
    heatmaps: Float[Tensor, "*batch view keypoint height width"], xy: Float[Tensor, "*batch view point 2"]
) -> Float[Tensor, "*batch view keypoint point"]:
    """Heatmaps at places, as multiples of a flat map's: h·pixels."""
    return sampled(heatmaps, xy) * (heatmaps.shape[-2] * heatmaps.shape[-1])


def heat_evidence(heat: Float[Tensor, "*batch"], outlier: float = EvidenceConfig.outlier) -> Float[Tensor, "*batch"]:
    """`view_evidence` of what `relative_heat` gives."""
    return ((1 - outlier) * heat + outlier).log()


def sampled(
    maps: Float[Tensor, "*batch view channel height width"],
    xy: Float[Tensor, "*batch view point 2"],
    edge: str = "zeros",
) -> Float[Tensor, "*batch view channel point"]:
    """Maps at places in the unit square, bilinear; ``edge`` says what is beyond it (``zeros`` or ``border``)."""
    flat = maps.reshape(-1, *maps.shape[-3:])
    places = (2 * xy - 1).reshape(-1, xy.shape[-2], 1, 2)
    found = F.grid_sample(flat, places, mode="bilinear", padding_mode=edge, align_corners=False)
    return found.reshape(*maps.shape[:-2], xy.shape[-2])


def beside_silhouette(
    distance: Float[Tensor, "*batch view height width"], xy: Float[Tensor, "*batch view point 2"]
) -> Float[Tensor, "*batch view point"]:
    """How far places lie from the object, by a map of the distance from its silhouette (0 on it), in sides.

    Outside the picture the distance to the picture (along both axes) is added.
    """
    inside = xy.clamp(0, 1)
    beyond: Tensor = (xy - inside).abs().sum(-1)
    return sampled(distance.unsqueeze(-3), inside, "border")[..., 0, :] + beyond


def log_evidence(
    points: Float[Tensor, "*batch point 3"],
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None = None,
    config: EvidenceConfig | None = None,
) -> Float[Tensor, "*batch keypoint point"]:
    """How likely each keypoint is at each point: `view_evidence` summed over the views.

    With ``distance`` from the silhouettes a point that some view sees beside the object is unlikely: the answer then
    lies in the visual hull (Laurentini 1994).
    """
    config = config or EvidenceConfig()
    xy = cameras.project(points)
    total = view_evidence(heatmaps, xy, config.outlier).sum(-3)
    if distance is None:
        return total
    beside = (beside_silhouette(distance, xy) / config.falloff).square().sum(-2)
    return total - 0.5 * beside[..., None, :]


@torch.no_grad()
def read_evidence(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None = None,
    config: EvidenceConfig | None = None,
) -> Evidence:
    """The most likely point of each keypoint (see `log_evidence`), on a coarse grid refined round its best point.

    The peak is the mean of the evidence on the last grid, the covariance that on the first fine one. Where the heatmaps
    are flat the answer is some point, of strength 0.
    """
    config = config or EvidenceConfig()
    grid, step, value = evidence_grid(heatmaps, cameras, distance, config)
    return refined(grid[value.argmax(-1)], step, heatmaps, cameras, distance, config)


def evidence_grid(
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None,
    config: EvidenceConfig,
) -> tuple[Float[Tensor, "point 3"], float, Float[Tensor, "*batch keypoint point"]]:
    """The coarse grid of the searched space, its spacing, and `log_evidence` on it."""
    grid, step = _coarse_grid(cameras, config.points)
    grid = grid.to(heatmaps)
    shared = grid.expand(*heatmaps.shape[:-4], -1, 3)
    return grid, step, log_evidence(shared, _coarse(heatmaps, config.points), cameras, distance, config)


def refined(
    best: Float[Tensor, "*batch keypoint 3"],
    step: float,
    heatmaps: Float[Tensor, "*batch view keypoint height width"],
    cameras: Cameras,
    distance: Float[Tensor, "*batch view mask_height mask_width"] | None,
    config: EvidenceConfig,
) -> Evidence:
    """The peak of the evidence next to the best points of a grid, on finer and finer grids round them."""
    # From here on every keypoint has points of its own, so it becomes an axis of the batch.
    alone = rearrange(heatmaps, "... v k h w -> ... k v 1 h w")
    if distance is not None:
        distance = distance.unsqueeze(-4).expand(*alone.shape[:-4], -1, -1, -1)
    near = _cube(config.fine).to(heatmaps)
    covariance = torch.eye(3).to(heatmaps).expand(*best.shape, 3) * step**2
    for level in range(config.levels):
        step /= config.zoom
        points = best[..., None, :] + step * near
        value = log_evidence(points, alone, cameras, distance, config)[..., 0, :]
        middle, spread = _moments(points, value)
        covariance = spread if level == 0 else covariance
        peak = value.max(-1)
        best = points.gather(-2, peak.indices[..., None, None].expand(*value.shape[:-1], 1, 3))[..., 0, :]
    return Evidence(middle, covariance, peak.values / len(cameras))


def hull_points(
    distance: Float[Tensor, "view height width"],
    cameras: Cameras,
    count: int,
    generator: torch.Generator,
    side: int = 40,
) -> Float[Tensor, "{count} 3"]:
    """Random points on the surface of the visual hull: cells of a grid, ``side`` a side, that border on empty ones.

    distance: from the silhouettes. A hull thinner than a cell is taken whole; where the silhouettes leave nothing, or
    exclude nothing, points are of the whole searched cube.
    """
    grid, step = _coarse_grid(cameras, side)
    grid = grid.to(distance)
    away = beside_silhouette(distance, cameras.project(grid)).amax(0)
    within = (away <= 0.5 * step * float(cameras.intrinsics[0, 0, 0]) / _reach(cameras)).reshape(1, side, side, side)
    solid = within.to(distance)
    inner = -F.max_pool3d(-F.pad(solid, (1,) * 6), 3, stride=1) > 0
    found = grid[(within & ~inner).flatten() if not within.all() else slice(None)]
    found = found if len(found) else grid
    draw = torch.rand(count, generator=generator).to(found.device)
    return found[(draw * len(found)).long()]


def search_volume(cameras: Cameras) -> tuple[Float[Tensor, "3"], float]:
    """Middle and radius of what all views look at: the point nearest to their middles' rays, the smallest half side.

    The ray through the middle of a picture that was cut is not its optical axis. World units, so it fits every rig and
    a user's own cameras. A single ray, or parallel ones, leave the middle where it is nearest to the origin.
    """
    centre, direction = _central_rays(cameras)
    unit = torch.eye(3).to(direction)
    across = unit - direction[:, :, None] * direction[:, None, :]
    right = (across @ centre[..., None]).sum(0)
    middle = torch.linalg.solve(across.sum(0) + 1e-9 * unit, right)[:, 0]
    depth = torch.ones_like(direction[:, 0]) if cameras.orthographic else cameras.depth(middle[None])[:, 0].abs()
    focal = cameras.intrinsics[:, [0, 1], [0, 1]].double().abs().amax(-1)
    return middle.to(cameras.world_to_camera), float((0.5 * depth / focal).min())


def _central_rays(cameras: Cameras) -> tuple[Float[Tensor, "view 3"], Float[Tensor, "view 3"]]:
    """Where the rays through the middles of the views start, and their unit directions, in double precision."""
    inner, axes = cameras.intrinsics.double(), cameras.world_to_camera[:, :3, :3].double()
    # Beside the optical axis, in camera space at depth 1; exactly 0 where the principal point is the middle.
    down = (0.5 - inner[:, 1, 2]) / inner[:, 1, 1]
    across = (0.5 - inner[:, 0, 2] - inner[:, 0, 1] * down) / inner[:, 0, 0]
    beside = across[:, None] * axes[:, 0] + down[:, None] * axes[:, 1]
    centre, axis = cameras.centers.double(), cameras.directions.double()
    if cameras.orthographic:
        return centre + beside, axis
    return centre, (axis + beside) / (1 + across**2 + down**2).sqrt()[:, None]


def _reach(cameras: Cameras) -> float:
    """What a focal length is divided by to bring a world length at the object to sides of the view."""
    middle, _ = search_volume(cameras)
    return 1.0 if cameras.orthographic else float(cameras.depth(middle[None])[:, 0].abs().mean())


def _coarse_grid(cameras: Cameras, side: int) -> tuple[Tensor, float]:
    middle, radius = search_volume(cameras)
    return middle + _cube(side).to(middle) * (2 * radius / (side - 1)), 2 * radius / (side - 1)


def _coarse(heatmaps: Tensor, side: int) -> Tensor:
    """Heatmaps no finer than a grid of that many points can find a peak in; each still sums to 1."""
    height, width = heatmaps.shape[-2:]
    if min(height, width) <= 1.5 * side:
        return heatmaps
    pooled = F.adaptive_avg_pool2d(heatmaps.reshape(-1, 1, height, width), side).reshape(
        *heatmaps.shape[:-2], side, side
    )
    return pooled * (height * width / side**2)


def _cube(side: int) -> Tensor:
    axis = torch.arange(side, dtype=torch.float32) - (side - 1) / 2
    return torch.cartesian_prod(axis, axis, axis)


def _moments(points: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    share = value.softmax(-1)
    middle = einsum(share, points, "... p, ... p c -> ... c")
    away = points - middle[..., None, :]
    return middle, einsum(share, away, away, "... p, ... p a, ... p b -> ... a b")
