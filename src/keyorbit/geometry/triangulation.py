"""From the places one point has in several views to the point itself."""

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
    """Distance in each view between a projected point and xy, as a fraction of the view's side."""
    distance: Tensor = torch.linalg.vector_norm(cameras.project(points) - xy, dim=-1)
    return distance


def triangulate(
    xy: Float[Tensor, "*batch view keypoint 2"],
    cameras: Cameras,
    weights: Float[Tensor, "*batch view keypoint"] | None = None,
    refine: int = 2,
    covariance: Float[Tensor, "*batch view keypoint 2 2"] | None = None,
) -> Float[Tensor, "*batch keypoint 3"]:
    """The 3D points that fit xy in every view best: least squares, closed form, differentiable.

    First the linear solution (inhomogeneous DLT; Hartley & Zisserman 2004, §12.2), then `refine` Gauss-Newton
    steps on the squared reprojection error, each kept only where it helps. `weights` ≥ 0 multiply the squared
    error. With the `covariance` of each place (positive definite) it is the squared Mahalanobis distance: a place
    that is uncertain along a line counts across it. Where all weights vanish the answer is the origin, and with
    one view the point of its ray nearest to the origin: always finite. Perspective and orthographic cameras.
    World units.
    Raises ValueError when xy and the cameras differ in their number of views.
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
    """Triangulation that views with a wrong place cannot pull away, and the weights it ended with.

    Iteratively reweighted least squares with Cauchy weights w / (1 + (error/scale)²) (Holland & Welsch 1977),
    `scale` a fraction of the view's side. It starts from the pair of views whose point has the least Cauchy
    cost over all views, since least squares over all of them may start beyond recall. The weights carry no
    gradient. Raises ValueError when xy and the cameras differ in their number of views.
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
    """Covariance of triangulated points whose places have variance/weight along each axis (squared sides).

    The inverse of the information that the views' rays add up to, to first order; world units squared. What no view
    fixes has a large variance, not an infinite one.
    """
    jacobian, _ = _jacobian(points, cameras.projection.to(points))
    weighted = jacobian * weights[..., None, None]
    information = (weighted[..., :, None] * jacobian[..., None, :]).sum(dim=(-5, -3))
    ridge = torch.finfo(points.dtype).eps ** (2 / 3) * torch.eye(3, dtype=points.dtype, device=points.device)
    inverse: Tensor = torch.linalg.inv_ex(information + ridge)[0]
    return inverse * variance[..., None, None]


def _check_views(xy: Tensor, cameras: Cameras) -> None:
    if xy.shape[-3] != len(cameras):
        raise ValueError(f"{xy.shape[-3]} views meet {len(cameras)} cameras: give one camera per view")


def _shares(weights: Tensor) -> Tensor:
    """Weights as shares of their sum over the views, so that their unit does not matter; 0 stays 0."""
    return weights / (weights.sum(dim=-2, keepdim=True) + 1e-6)


def _lines(projection: Tensor, xy: Tensor) -> Tensor:
    """Two planes per view and keypoint, [*batch view keypoint 2 4], that the point's ray lies in."""
    return projection[:, None, :2] - xy[..., None] * projection[:, None, 2:]


def _whitening(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """W with W·Wᵀ the inverse covariance over its mean eigenvalue, and that eigenvalue: shape and size apart.

    In closed form, so that a gradient passes where two eigenvalues are equal.
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
    """The transposed whitening applied to rows [*batch view keypoint 2 column]."""
    return rows if whitening is None else (whitening[..., :, :, None] * rows[..., :, None, :]).sum(-3)


def _cost(points: Tensor, xy: Tensor, cameras: Cameras, share: Tensor, whitening: Tensor | None) -> Tensor:
    away = _whiten((cameras.project(points) - xy)[..., None], whitening)
    return (away.square().sum((-2, -1)) * share).sum(-2)


def _jacobian(points: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    """Derivative of the projections by the points, [*batch view keypoint 2 3], and the projections."""
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
    return _solve(_whiten(jacobian, whitening), away, share)


def _solve(rows: Tensor, offset: Tensor, share: Tensor) -> Tensor:
    """The x [*batch keypoint 3] of least Σ share·|rows·x + offset|², summed over the views.

    rows: [*batch view keypoint 2 3], offset: [*batch view keypoint 2], share: [*batch view keypoint].
    A small multiple of the identity (Tikhonov) keeps it finite where the views do not fix the point.
    """
    weighted = rows * share[..., None, None]
    # Sums of products in place of matmul: autocast and TF32 would take digits from a 3 × 3 system.
    normal = (weighted[..., :, None] * rows[..., None, :]).sum(dim=(-5, -3))
    right = -(weighted * offset[..., None]).sum(dim=(-4, -2))
    ridge = torch.finfo(rows.dtype).eps ** (2 / 3) * torch.eye(3, dtype=rows.dtype, device=rows.device)
    solution: Tensor = torch.linalg.solve_ex(normal + ridge, right[..., None])[0]
    return solution[..., 0]


def _cauchy(prior: Tensor, error: Tensor) -> Tensor:
    return prior / (1 + (error / _SCALE).square())


def _best_pair(xy: Tensor, cameras: Cameras, prior: Tensor) -> Tensor:
    """For every keypoint the point from two views that all views, by their Cauchy cost, like best."""
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
