"""Objects of known landmarks, and what a detector would have found on them."""

import torch
from PIL import Image

from keyorbit.detection.found import Detection
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import ObjectViews, Truth
from pnp import solve_input_camera

CAMERAS = zero123plus_cameras("v1.2")
LANDMARKS = 5


def make_world(objects=6, seed=0):
    """Objects whose landmarks are known; masks are True everywhere."""
    generator = torch.Generator().manual_seed(seed)
    base = 0.6 * torch.rand(LANDMARKS, 3, generator=generator) - 0.3
    things = []
    for i in range(objects):
        landmarks = base + 0.05 * torch.randn(LANDMARKS, 3, generator=generator)
        truth = Truth(
            tuple("abcde"),
            (),
            landmarks,
            torch.ones(LANDMARKS, dtype=torch.bool),
            torch.cat([torch.zeros(1, LANDMARKS, 2), CAMERAS.project(landmarks)]),
            torch.ones(7, LANDMARKS, dtype=torch.bool),
        )
        views = torch.zeros(6, 3, 8, 8)
        masks = torch.ones(6, 8, 8, dtype=torch.bool)
        things.append(ObjectViews(f"thing{i}", Image.new("RGB", (8, 8)), views, masks, CAMERAS, "", truth))
    return things


def detections(things, noise=0.0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for thing in things:
        xy = CAMERAS.project(thing.truth.keypoints_3d)
        xy = xy + noise * torch.randn(xy.shape, generator=generator)
        flat = Keypoints2D(xy, torch.ones(xy.shape[:2]), CAMERAS)
        found.append(
            Detection(
                thing.name,
                thing.input_image,
                thing.views,
                thing.masks,
                torch.zeros(6, 5, 4, 4),
                flat,
                flat.triangulate(),
            )
        )
    return found


def seen_by(flat, points):
    """The input picture's camera from its keypoints in space."""
    return solve_input_camera(points.xyz, flat.input_xy, flat.input_score * points.score, flat.cameras)


def ball(radius=0.35, side=32):
    """The outlines of a ball about the origin."""
    drawn = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    places = (CAMERAS.project(radius * drawn / drawn.norm(dim=1, keepdim=True)) * side).long().clamp(0, side - 1)
    masks = torch.zeros(6, side, side, dtype=torch.bool)
    for mask, xy in zip(masks, places, strict=True):
        mask[xy[:, 1], xy[:, 0]] = True
    return masks
