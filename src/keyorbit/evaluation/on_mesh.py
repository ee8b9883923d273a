"""Keypoints and landmarks on the meshes that objects were rendered from, and KeypointNet's figures of them.

Both are moved to the nearest points of the mesh; distances are along its surface, and the unit is the diagonal of the
mesh's box in the axes of its file, as of ShapeNet's models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.evaluation.measures import OnMesh
from keyorbit.evaluation.metrics.keypointnet import keypointnet_iou, keypointnet_map, keypointnet_pck
from keyorbit.evaluation.outcome import Outcome
from keyorbit.geometry.geodesics import surface_distances
from keyorbit.geometry.keypoints import Keypoints3D
from keyorbit.objects.dataset import Truth
from keyorbit.objects.mesh import PlacedMesh

# Those of KeypointNet's figures, but for 0.
THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 11))


@dataclass(frozen=True)
class KeypointNetFigures:
    """KeypointNet's figures, one for each threshold, in shares of the diagonal of the mesh's box.

    Attributes:
        thresholds: 0.01, 0.02, … 0.1.
        iou: :func:`keyorbit.metrics.keypointnet_iou`.
        pck: :func:`keyorbit.metrics.keypointnet_pck`, of the predicted landmarks.
        map: :func:`keyorbit.metrics.keypointnet_map`; objects are of one class.
    """

    thresholds: tuple[float, ...]
    iou: tuple[float, ...]
    pck: tuple[float, ...]
    map: tuple[float, ...]


def on_meshes(
    detections: Sequence[Outcome],
    truths: Sequence[Truth],
    predicted: Float[Tensor, "item landmark 3"],
) -> OnMesh | None:
    """Compute distances along the meshes; None where an object has no mesh or no 3D, or no landmark is known."""
    known = torch.stack([truth.known for truth in truths])
    rows = []
    for detection, truth, places in zip(detections, truths, predicted, strict=True):
        mesh, points, wanted = detection.mesh, detection.keypoints_3d, truth.keypoints_3d
        if mesh is None or points is None or wanted is None:
            return None
        rows.append(_distances(mesh.placed(), wanted, points.xyz, places))
    if not bool(known.any()):
        return None
    found = [one.keypoints_3d for one in detections if one.keypoints_3d is not None]
    return OnMesh(
        torch.stack([to_landmarks for to_landmarks, _ in rows]),
        torch.stack([off for _, off in rows]),
        known,
        torch.stack([one.score > 0 for one in found]),
        torch.stack([_confidence(*one) for one in zip(detections, found, strict=True)]),
    )


def keypointnet_figures(seen: OnMesh) -> KeypointNetFigures:
    """Compute KeypointNet's figures at all thresholds."""

    def each(metric: Callable[[float], Tensor]) -> tuple[float, ...]:
        return tuple(float(metric(threshold)) for threshold in THRESHOLDS)

    return KeypointNetFigures(
        THRESHOLDS,
        each(lambda t: keypointnet_iou(seen.keypoints, t, seen.known, seen.counted)),
        each(lambda t: keypointnet_pck(seen.predicted, t, seen.known)),
        each(lambda t: keypointnet_map(seen.keypoints, seen.confidence, t, seen.known, seen.counted)),
    )


def _distances(
    mesh: PlacedMesh,
    landmarks: Float[Tensor, "landmark 3"],
    keypoints: Float[Tensor, "keypoint 3"],
    predicted: Float[Tensor, "landmark 3"],
) -> tuple[Float[Tensor, "keypoint landmark"], Float[Tensor, " landmark"]]:
    ends = torch.cat([keypoints, predicted, landmarks]).nan_to_num(0.0).cpu().double().numpy()
    places = mesh.nearest(ends).places
    used = mesh.vertices[mesh.faces].reshape(-1, 3)
    size = float(np.linalg.norm(np.ptp(used, axis=0)))
    own, others = places[len(places) - len(landmarks) :], places[: len(places) - len(landmarks)]
    # A little more, for the largest threshold is included.
    found = surface_distances(mesh.vertices, mesh.faces, own, others, limit=1.01 * THRESHOLDS[-1] * size) / size
    away = torch.from_numpy(found)
    return away[:, : len(keypoints)].mT, away[:, len(keypoints) :].diagonal()


def _confidence(detection: Outcome, points: Keypoints3D) -> Float[Tensor, " keypoint"]:
    return points.score if detection.confidence is None else detection.confidence.keypoints
