"""The input picture's camera by search: which elevation explains its heatmaps and its silhouette best."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.evidence import view_evidence
from keyorbit.geometry.heatmaps import resize
from keyorbit.geometry.hull import Silhouette, beside_silhouette, hull_points, search_volume, silhouettes
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.objects.framing import middle_square
from keyorbit.objects.pictures import to_tensor

# Elevations that are tried, degrees: first, last and step.
_ELEVATIONS = (-40.0, 82.0, 2.0)
# How much of a keypoint's evidence counts, at full score; and the chance that a map marks another place.
_TRUST, _OUTLIER = 0.1, 0.3
# Standard deviation of the outline of the visual hull about the picture's, in sides.
_OUTLINE_STD = 0.03
# Weight of the outline in the posterior, as a number of independent measurements: calibrated so that 70 % of errors on
# held-out objects fall within one standard deviation.
_OUTLINE_WEIGHT = 50.0
# Logarithm of the odds that a picture is cropped (zoomed and shifted), before looking at it.
_CROPPED = -3.0
# Points of the visual hull that are drawn onto the picture.
HULL_POINTS = 400


@dataclass(frozen=True, eq=False)
class InputCamera:
    """The camera of one picture, or of each of a batch (then every field has its axes in front).

    cameras: one per picture. elevation_deg, elevation_std_deg: the standard deviation counts noise as the residuals
    show it, and other elevations that fit about as well. residual: [keypoint], distance between the projected and
    the seen place, fraction of the picture's side; inliers: residual below 3 standard deviations of the noise, and a
    weight above 0. score: in [0, 1]; 0, with an infinite standard deviation, where the elevation cannot be known.
    """

    cameras: Cameras
    azimuth_deg: Float[Tensor, "*batch"]
    elevation_deg: Float[Tensor, "*batch"]
    elevation_std_deg: Float[Tensor, "*batch"]
    residual: Float[Tensor, "*batch keypoint"]
    inliers: Bool[Tensor, "*batch keypoint"]
    score: Float[Tensor, "*batch"]

    @property
    def apart(self) -> float:
        """The median residual of one picture; infinite where its elevation cannot be known."""
        return float(self.residual.median()) if float(self.score) > 0 else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers of one picture, ready for JSON; a standard deviation of None is infinite."""
        std = float(self.elevation_std_deg)
        return {
            "azimuth_deg": float(self.azimuth_deg),
            "elevation_deg": float(self.elevation_deg),
            "elevation_std_deg": std if math.isfinite(std) else None,
            "score": float(self.score),
            "world_to_camera": self.cameras.world_to_camera[0].tolist(),
            "intrinsics": self.cameras.intrinsics[0].tolist(),
            "orthographic": self.cameras.orthographic,
            "residual": self.residual.tolist(),
            "inliers": self.inliers.tolist(),
        }


@dataclass(frozen=True, eq=False)
class Outline:
    """The object's silhouette on the input picture, and points of its visual hull, which should fill it.

    Attributes:
        hull: points of its surface, world units.
        silhouette: of the one picture.
    """

    hull: Float[Tensor, "point 3"]
    silhouette: Silhouette

    @property
    def distance(self) -> Float[Tensor, "height width"]:
        """From the silhouette, in sides of the picture."""
        return self.silhouette.distance[0]

    @property
    def tells(self) -> bool:
        """Whether the object is somewhere on the picture, and not everywhere."""
        return bool((self.distance == 0).any() and (self.distance > 0).any())


def find_input_camera(
    picture: Image.Image,
    keypoints: Keypoints2D,
    points: Keypoints3D,
    heatmaps: Float[Tensor, "keypoint height width"],
    distance: Float[Tensor, "view mask_height mask_width"],
) -> InputCamera | None:
    """The input picture's camera, from its heatmaps and its outline; see :func:`search_input_camera`.

    None for keypoints without cameras, or without places on the input picture. distance: from the silhouettes of the
    views (:class:`keyorbit.geometry.hull.Silhouette`). Everything is on the CPU: few numbers, and many steps.
    """
    if keypoints.cameras is None or keypoints.input_xy is None or keypoints.input_score is None:
        return None
    pixels, alpha = to_tensor(picture.crop(middle_square(picture)))
    mask = silhouettes(pixels[None])[0] if alpha is None else alpha
    size = (distance.shape[-2], distance.shape[-1])
    silhouette = Silhouette.of(resize(mask.float(), size)[None] > 0.5)
    hull = hull_points(distance, keypoints.cameras, HULL_POINTS, torch.Generator().manual_seed(0))
    weights = keypoints.input_score * points.score
    outline = Outline(hull, silhouette)
    return search_input_camera(points.xyz, weights, heatmaps, keypoints.input_xy, keypoints.cameras, outline)


@torch.no_grad()
def search_input_camera(
    points: Float[Tensor, "keypoint 3"],
    weights: Float[Tensor, " keypoint"],
    heatmaps: Float[Tensor, "keypoint height width"],
    xy: Float[Tensor, "keypoint 2"],
    views: Cameras,
    outline: Outline | None = None,
) -> InputCamera:
    """The camera at azimuth 0 that sees the keypoints where the picture's heatmaps are, and the object as its outline.

    Every elevation from -40° to 82° is tried with the views' field of view and distance, once as if the picture were
    framed like the views and once zoomed and shifted so that the visual hull fills the silhouette's box. An elevation's
    likelihood is the evidence of all maps at the projected points (see `evidence.view_evidence`), each counted by its
    weight in [0, 1], times that of the silhouette: the mean squared distance between the projected hull and it, both
    ways. Elevation and standard deviation are those of the likelihood; residuals are of xy, where the maps were read.
    Without an outline the maps alone decide.
    """
    elevations = torch.arange(*_closed(_ELEVATIONS), dtype=torch.float64)
    middle, _ = search_volume(views)
    reach = float(torch.linalg.vector_norm(views.centers[0] - middle))
    fov = math.degrees(2 * math.atan(0.5 / float(views.intrinsics[0, 0, 0])))
    scale = 1 / float(views.intrinsics[0, 0, 0])
    zeros = [0.0] * len(elevations)
    cameras = orbit_cameras(zeros, elevations.tolist(), reach, fov, views.orthographic, scale).to(points.device)
    rigid = cameras.world_to_camera.clone()
    rigid[:, :3, 3] -= (rigid[:, :3, :3] * middle.to(rigid)).sum(-1)
    cameras = Cameras(rigid, cameras.intrinsics, cameras.orthographic)
    telling = outline if outline is not None and outline.tells else None
    hypotheses = [(cameras, 0.0)]
    if telling is not None:
        hypotheses.append((_fitted(cameras, telling.hull, telling.silhouette.mask[0]), _CROPPED))
    likelihoods = []
    for guess, prior in hypotheses:
        evidence = view_evidence(heatmaps.expand(len(guess), -1, -1, -1), guess.project(points), _OUTLIER)
        own = evidence.diagonal(dim1=-2, dim2=-1)
        total = _TRUST * (own * weights).sum(-1) + prior
        if telling is not None:
            mismatch = _mismatch(guess, telling.hull, telling.distance)
            total = total - _OUTLINE_WEIGHT * mismatch / (2 * _OUTLINE_STD**2)
        likelihoods.append(total)
    chance = torch.stack(likelihoods).cpu().double()  # MPS has no float64
    posterior = rearrange(rearrange(chance, "h e -> (h e)").softmax(-1), "(h e) -> h e", h=len(hypotheses))
    share = posterior.sum(0)
    mean = (share * elevations).sum()
    std = ((share * (elevations - mean).square()).sum() + _ELEVATIONS[2] ** 2 / 12).sqrt()
    place = int((elevations - mean).abs().argmin())
    best = hypotheses[int(posterior[:, place].argmax())][0].select([place])
    return _answer(points, xy, weights, best, mean, std)


def _answer(
    points: Tensor, xy: Tensor, weights: Tensor, camera: Cameras, elevation: Tensor, std: Tensor
) -> InputCamera:
    residual = torch.linalg.vector_norm(camera.project(points)[0] - xy, dim=-1)
    noise = residual[weights > 0].median() / 1.1774 if bool((weights > 0).any()) else residual.new_tensor(math.inf)
    # An elevation that may be anywhere in -90°…90° has a standard deviation of 52°.
    known = float(std) < 26.0
    score = weights.mean().clamp(0, 1).cpu() * (1 - std / 26.0) if known else points.new_zeros(())
    return InputCamera(
        camera,
        points.new_zeros(()),
        elevation.to(points),
        std.to(points) if known else points.new_tensor(math.inf),
        residual,
        (residual <= 3 * noise) & (weights > 0) & known,
        score.to(points),
    )


def _closed(limits: tuple[float, float, float]) -> tuple[float, float, float]:
    first, last, step = limits
    return first, last + step / 2, step


def _mismatch(cameras: Cameras, hull: Tensor, distance: Tensor) -> Tensor:
    """Mean squared distance between the projected hull and the silhouette, both ways, for every camera: [view]."""
    xy = cameras.project(hull)
    outside = beside_silhouette(distance.expand(len(xy), -1, -1), xy).square().mean(-1)
    rows, columns = (distance == 0).nonzero().unbind(-1)
    keep = torch.linspace(0, len(rows) - 1, min(len(rows), 200)).long()
    size = torch.tensor([distance.shape[1], distance.shape[0]]).to(xy)
    pixels = (torch.stack([columns, rows], -1)[keep].to(xy) + 0.5) / size
    bare = torch.cdist(pixels.expand(len(xy), -1, -1), xy).amin(-1).square().mean(-1)
    return outside + bare


def _fitted(cameras: Cameras, hull: Tensor, mask: Bool[Tensor, "height width"]) -> Cameras:
    """The cameras zoomed and shifted so that the hull's box in each is the silhouette's."""
    height, width = mask.shape
    rows, columns = mask.nonzero().unbind(-1)
    size = torch.tensor([width, height]).to(hull)
    low = torch.stack([columns.min(), rows.min()]).to(hull) / size
    high = (torch.stack([columns.max(), rows.max()]).to(hull) + 1) / size
    xy = cameras.project(hull)
    near, far = xy.amin(1), xy.amax(1)
    zoom = ((high - low).norm() / (far - near).norm(dim=-1)).clamp(0.2, 5)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, :2, :2] *= zoom[:, None, None]
    principal = cameras.intrinsics[:, :2, 2]
    intrinsics[:, :2, 2] = (low + high) / 2 - zoom[:, None] * ((near + far) / 2 - principal)
    return Cameras(cameras.world_to_camera, intrinsics, cameras.orthographic)
