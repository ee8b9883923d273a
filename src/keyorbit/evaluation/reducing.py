"""Detections and their objects, reduced to what the figures need of them."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.detection.found import Detection
from keyorbit.evaluation import metrics
from keyorbit.evaluation.outcome import Judgement, MeshOfOutcome, Outcome
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.mesh import PlacedMesh


def judgement(thing: ObjectViews, found: Mapping[str, Detection]) -> Judgement:
    """Put together what is kept of an object and of what each set of tokens found on it."""
    outcomes = {name: outcome_of(one) for name, one in found.items()}
    return Judgement(thing.name, thing.truth, thing.symmetry, thing.input_elevation_deg, outcomes)


def outcome_of(found: Detection | Outcome) -> Outcome:
    """Reduce a detection to what figures need of it."""
    if isinstance(found, Outcome):
        return found
    height, width = found.views.shape[-2:]
    extents = [torch.stack([_extent(mask.any(-2)), _extent(mask.any(-1))]) for mask in found.masks]
    return Outcome(
        found.name,
        (height, width),
        _on_object(found),
        torch.stack(extents),
        found.keypoints_2d,
        found.keypoints_3d,
        found.input_camera,
        found.framing,
        found.confidence,
        None if found.mesh is None else _bare(found.mesh),
    )


def _bare(mesh: PlacedMesh) -> MeshOfOutcome:
    vertices, faces, rotation, centre = (
        torch.from_numpy(x.copy()) for x in (mesh.vertices, mesh.faces, mesh.rotation, mesh.centre)
    )
    return MeshOfOutcome(mesh.model, mesh.kind, vertices, faces, rotation, centre, float(mesh.scale))


def _on_object(found: Detection) -> Tensor:
    cameras, points = found.keypoints_2d.cameras, found.keypoints_3d
    places = found.keypoints_2d.xy if cameras is None or points is None else cameras.project(points.xyz)
    return metrics.on_object_rate(places[None], found.masks[None])


def _extent(covered: Bool[Tensor, " pixel"]) -> Float[Tensor, ""]:
    """Return the extent from the first to the last covered pixel, as a share of all pixels."""
    where = covered.nonzero()
    count = where.max() - where.min() + 1 if len(where) else covered.sum()
    return count.float() / len(covered)
