"""Triangulate points from their positions in several views."""

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.geometry.cameras import Cameras

# As in Cameras.project: no division by a depth of 0.
_MIN_DEPTH = 1e-6
# Robust triangulation: rounds of reweighting, and the scale of its Cauchy weights in sides of the view.
_ROUNDS, _SCALE = 10, 0.02


def reprojection_error(
    points: Float[Tensor, "*batch keypoint 3"],
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
) -> Float[Tensor, "*batch view keypoint"]:
    """Compute the distance in each view between a projected point and xy, in sides of the view."""
    distance: Tensor = torch.linalg.vector_norm(cameras.project(points) - xy, dim=-1)
    return distance


def triangulate(
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
    weights: Float[Tensor, "*batch view keypoint"] | None = None,
    refine: int = 2,
    covariance: Float[Tensor, "*batch view keypoint 2 2"] | None = None,
) -> Float[Tensor, "*batch keypoint 3"]:
    """Compute the 3D points that fit xy in every view best: least squares, closed form, differentiable.

    First comes the linear solution (inhomogeneous DLT; Hartley & Zisserman 2004, §12.2), then `refine` Gauss-Newton
    steps on the squared reprojection error, each kept only where it reduces the error. The result is always finite:
    where all weights are 0 it is the origin, and with one view it is the point of its ray nearest to the origin.

    Args:
        xy: positions in the unit square of each view.
        cameras: perspective or orthographic cameras of the views.
        weights: ≥ 0; they multiply the squared errors. Default None: all 1.
        refine: number of Gauss-Newton steps, default 2.
        covariance: of each position (positive definite). With it the error is the squared Mahalanobis distance: a
            position that is uncertain along a line counts across it. Default None.

    Returns:
        The points, in world units.

    Raises:
        ValueError: xy and the cameras differ in their number of views.
    """
    _check_views(xy, cameras)
    if xy.dtype in (torch.float16, torch.bfloat16):
        xy = xy.float()
    weights = torch.ones_like(xy[..., 0]) if weights is None else weights.to(xy.dtype)
    whitening = None
    if covariance is not None:
        whitening, certainty = _whitening(covariance.to(xy.dtype))
        weights = weights * certainty
    share = _shares(weights)
    projection = cameras.projection.to(xy)
    rows = _whiten(_lines(projection, xy), whitening)
    points = _solve(rows[..., :3], rows[..., 3], share)
    cost = _cost(points, xy, cameras, share, whitening)
    for _ in range(refine):
        moved = points + _gauss_newton_step(points, xy, projection, share, whitening)
        moved_cost = _cost(moved, xy, cameras, share, whitening)
        # The slack lets rounding pass: near the optimum a step must not be refused by chance.
        better = moved_cost <= cost + torch.finfo(xy.dtype).eps
        points = torch.where(better[..., None], moved, points)
        cost = torch.where(better, moved_cost, cost)
    return points


def robust_triangulate(
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
    weights: Float[Tensor, "*batch view keypoint"] | None = None,
) -> tuple[Float[Tensor, "*batch keypoint 3"], Float[Tensor, "*batch view keypoint"]]:
    """Triangulate so that views with a wrong position do not move the point; return the points and the final weights.

    This is iteratively reweighted least squares with Cauchy weights w / (1 + (error/scale)²) (Holland & Welsch 1977),
    with a scale of 0.02 sides of the view. It starts from the pair of views whose point has the least Cauchy cost over
    all views, because least squares over all views may start too far away to recover. The weights carry no gradient.
    Raises ValueError when xy and the cameras differ in their number of views.
    """
    _check_views(xy, cameras)
    xy = xy.float() if xy.dtype in (torch.float16, torch.bfloat16) else xy
    prior = torch.ones_like(xy[..., 0]) if weights is None else weights.to(xy.dtype)
    with torch.no_grad():
        points = _best_pair(xy, cameras, prior)
        used = _cauchy(prior, reprojection_error(points, xy, cameras))
        for _ in range(_ROUNDS):
            points = triangulate(xy, cameras, used, refine=1)
            used = _cauchy(prior, reprojection_error(points, xy, cameras))
    return triangulate(xy, cameras, used), used


def point_covariance(
    points: Float[Tensor, "*batch keypoint 3"],
    cameras: Cameras,
    weights: Float[Tensor, "*batch view keypoint"],
    variance: Float[Tensor, "*batch keypoint"],
) -> Float[Tensor, "*batch keypoint 3 3"]:
    """Compute the covariance of triangulated points whose positions have variance/weight along each axis.

    It is the inverse of the sum of the views' information, to first order, in world units squared. The variance is in
    squared sides of the view. A direction that no view constrains has a large variance, not an infinite one.
    """
    jacobian, _ = _jacobian(points, cameras.projection.to(points))
    unit = _unit(jacobian)
    jacobian = jacobian * unit[..., None, :, None, None]
    weighted = jacobian * weights[..., None, None]
    information = (weighted[..., :, None] * jacobian[..., None, :]).sum(dim=(-5, -3))
    ridge = torch.finfo(points.dtype).eps ** (2 / 3) * torch.eye(3, dtype=points.dtype, device=points.device)
    inverse: Tensor = torch.linalg.inv_ex(information + ridge)[0]
    return inverse * (variance * unit.square())[..., None, None]


def _check_views(xy: Tensor, cameras: Cameras) -> None:
    if xy.shape[-3] != len(cameras):
        raise ValueError(f"{xy.shape[-3]} views meet {len(cameras)} cameras: give one camera per view")


def _shares(weights: Tensor) -> Tensor:
    """Divide weights by their sum over the views, so that their unit does not matter; weights of 0 stay 0."""
    return weights / (weights.sum(dim=-2, keepdim=True) + 1e-6)


def _lines(projection: Tensor, xy: Tensor) -> Tensor:
    """Return two planes for each view and keypoint, [*batch view keypoint 2 4], that contain the point's ray."""
    return projection[:, None, :2] - xy[..., None] * projection[:, None, 2:]


def _whitening(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return W with W·Wᵀ the inverse covariance over its mean eigenvalue, and that eigenvalue.

    It is in closed form, so that a gradient passes where two eigenvalues are equal.
    """
    (xx, xy), (_, yy) = (row.unbind(-1) for row in covariance.unbind(-2))
    half = ((xx + yy) / 2).clamp_min(torch.finfo(covariance.dtype).tiny)
    xx, xy, yy = xx / half, xy / half, yy / half
    determinant = (xx * yy - xy.square()).clamp_min(1e-6)
    # The inverse is [[yy, -xy], [-xy, xx]] / determinant, of trace 2 / determinant; below is its Cholesky factor
    # once the trace is 2.
    first = yy.clamp_min(1e-6).sqrt()
    zero = torch.zeros_like(xy)
    rows = [torch.stack([first, zero], -1), torch.stack([-xy / first, determinant.sqrt() / first], -1)]
    return torch.stack(rows, -2), 1 / (half * determinant)


def _whiten(rows: Tensor, whitening: Tensor | None) -> Tensor:
    """Apply the transposed whitening to rows [*batch view keypoint 2 column]."""
    return rows if whitening is None else (whitening[..., :, :, None] * rows[..., :, None, :]).sum(-3)


def _cost(points: Tensor, xy: Tensor, cameras: Cameras, share: Tensor, whitening: Tensor | None) -> Tensor:
    away = _whiten((cameras.project(points) - xy)[..., None], whitening)
    return (away.square().sum((-2, -1)) * share).sum(-2)


def _jacobian(points: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivative of the projections by the points, [*batch view keypoint 2 3], and the projections."""
    linear, offset = projection[:, None, :, :3], projection[:, None, :, 3]
    homogeneous = (linear * points[..., None, :, None, :]).sum(-1) + offset
    depth = homogeneous[..., 2:]
    depth = torch.where(depth < 0, -1.0, 1.0) * depth.abs().clamp_min(_MIN_DEPTH)
    seen = homogeneous[..., :2] / depth
    return (linear[..., :2, :] - seen[..., None] * linear[..., 2:, :]) / depth[..., None], seen


def _gauss_newton_step(
    points: Tensor, xy: Tensor, projection: Tensor, share: Tensor, whitening: Tensor | None
) -> Tensor:
    jacobian, seen = _jacobian(points, projection)
    away = _whiten((seen - xy)[..., None], whitening)[..., 0]
    unit = _unit(jacobian)
    return _solve(_whiten(jacobian * unit[..., None, :, None, None], whitening), away, share) * unit[..., None]


def _unit(jacobian: Tensor) -> Tensor:
    """Return the length, for each keypoint, that the least near view shows as one side: about 1 for the model's rigs.

    In this unit the small multiples of the identity that keep solutions finite do not depend on the world's unit.
    """
    shown = (jacobian.detach().square().sum((-2, -1)) / 2).amin(-2)
    tiny = torch.finfo(jacobian.dtype).tiny ** 0.5
    return shown.clamp_min(tiny).rsqrt()


def _solve(rows: Tensor, offset: Tensor, share: Tensor) -> Tensor:
    """Find x [*batch keypoint 3] that minimises Σ share·|rows·x + offset|², summed over the views.

    rows: [*batch view keypoint 2 3], offset: [*batch view keypoint 2], share: [*batch view keypoint]. A small multiple
    of the identity (Tikhonov) keeps x finite where the views do not determine the point.
    """
    weighted = rows * share[..., None, None]
    # Sums of products instead of matmul, which loses digits under autocast and TF32.
    normal = (weighted[..., :, None] * rows[..., None, :]).sum(dim=(-5, -3))
    right = -(weighted * offset[..., None]).sum(dim=(-4, -2))
    ridge = torch.finfo(rows.dtype).eps ** (2 / 3) * torch.eye(3, dtype=rows.dtype, device=rows.device)
    solution: Tensor = torch.linalg.solve_ex(normal + ridge, right[..., None])[0]
    return solution[..., 0]


def _cauchy(prior: Tensor, error: Tensor) -> Tensor:
    return prior / (1 + (error / _SCALE).square())


def _best_pair(xy: Tensor, cameras: Cameras, prior: Tensor) -> Tensor:
    """Return, for every keypoint, the point from two views that has the least Cauchy cost over all views."""
    count = len(cameras)
    if count < 3:
        return triangulate(xy, cameras, prior)
    pairs = torch.combinations(torch.arange(count, device=xy.device))
    members = torch.zeros(len(pairs), count, dtype=xy.dtype, device=xy.device).scatter(1, pairs, 1.0)
    many = xy.expand(len(pairs), *xy.shape)
    # Each pair weighs its two views alike: a pair with an unlikely view is judged by the cost, not here.
    lead = (len(pairs),) + (1,) * (xy.dim() - 3)
    chosen = members.reshape(*lead, count, 1).expand(many.shape[:-1])
    points = triangulate(many, cameras, chosen, refine=1)
    error = reprojection_error(points, many, cameras)
    cost = (prior * (error / _SCALE).square().log1p()).sum(-2)
    best = cost.argmin(dim=0)
    return points.gather(0, best[None, ..., None].expand(1, *points.shape[1:]))[0]
