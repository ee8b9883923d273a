"""Methods that a claim has to beat: other losses on the same queries, classical features, and no method at all."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from einops import rearrange
from scipy.cluster.vq import kmeans2
from torch import Tensor

import keyorbit as ko
from keyorbit.detection.found import Detection
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import LayerMaps, token_maps
from keyorbit.diffusion.prepare import object_views
from keyorbit.diffusion.recording import joined
from keyorbit.discovery.config import map_side
from keyorbit.discovery.initial import untrained
from keyorbit.discovery.losses import localization, pixel_consistency
from keyorbit.discovery.objective import single_view_objective
from keyorbit.discovery.selection import select_tokens
from keyorbit.discovery.weights import SingleViewWeights
from keyorbit.geometry.heatmaps import argmax_xy, normalize
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.views import Layout
from keyorbit.objects.dataset import Objects, stack_truths
from shared_work import SharedWork

# Six views of 40 × 40 in a latent of 120 × 80 are 3 rows × 2 columns; the shape analysis reads it as 80 × 120, 2 × 3.
MISREAD = Layout(2, 3)
Loss = Callable[[Tensor, Tensor], Tensor]


def single_view_losses(config: ko.DiscoverConfig) -> Loss:
    """StableKeypoints' two terms on every view by itself: nothing says that views should agree."""

    def loss(maps: Tensor, warps: Tensor) -> Tensor:
        return single_view_objective(maps, warps, SingleViewWeights(), config.num_tokens)["total"]

    return loss


def shape_analysis_losses(maps: Tensor, warps: Tensor) -> Tensor:
    """Localisation in every view, and consistency of the peaks' pixels, which has no gradient; no warps."""
    flat = rearrange(maps[:, :1], "o n v t h w -> (o n) v t h w")
    return localization(flat) + pixel_consistency(flat)


def optimise(
    backend: Backend, objects: Objects, config: ko.DiscoverConfig, loss: Loss, work: SharedWork, misread: bool = False
) -> ko.Tokens:
    """Tokens that a loss of attention maps and warps finds, the sharpest that lie apart; otherwise as discovery.

    ``misread``: while optimising, positions are taken for a grid of exchanged height and width, 2 × 3 views.
    """
    # Not by constellation: that would leave out the warps, which equivariance needs.
    settled = replace(config, maps="attention", method="consistency").settled(backend)
    start = untrained(backend, replace(settled, num_tokens=config.num_candidates))
    recorded = work.source(backend, objects, settled).recordings
    recordings = [recorded[number] for number in range(len(objects))]
    cache = joined(recordings)
    tokens = start.embedding.detach().to(backend.device).requires_grad_(True)
    optimizer = torch.optim.Adam([tokens], lr=config.rate)
    side, layout = map_side(backend, config.map_size), MISREAD if misread else backend.layout

    def maps(chosen: Tensor, layout: Layout) -> Tensor:
        items = rearrange(chosen[:, None] * cache.versions + torch.arange(cache.versions), "o n -> (o n)")
        layers = cache.maps(tokens, items, "attention")
        if layout == MISREAD:
            layers = [LayerMaps(x.name, x.maps, x.size[::-1]) for x in layers]
        return rearrange(
            token_maps(layers, layout, "attention", side, config.temperature), "(o n) ... -> o n ...", n=cache.versions
        )

    for step in range(config.steps):
        generator = torch.Generator().manual_seed(config.seed * 10**7 + step)
        chosen = torch.randperm(len(recordings), generator=generator)[: config.batch]
        warps = torch.stack([recordings[i].shown.warps for i in chosen.tolist()])
        optimizer.zero_grad(set_to_none=True)
        loss(maps(chosen, layout), warps.to(tokens)).backward()
        for group in optimizer.param_groups:
            group["lr"] = config.rate * (1 - 0.9 * step / config.steps)
        optimizer.step()
    with torch.no_grad():
        heatmaps = normalize(torch.cat([maps(torch.tensor([i]), backend.layout)[:, 0] for i in range(len(recordings))]))
    peaks = argmax_xy(heatmaps[:, 0])
    best = select_tokens(heatmaps, peaks, torch.zeros_like(peaks[..., 0]), config.num_tokens).tokens
    return ko.Tokens(tokens.detach().cpu()[best.cpu()], replace(start.info, settings=_settings(start, config)))


def _settings(start: ko.Tokens, config: ko.DiscoverConfig) -> dict[str, object]:
    return start.info.settings | {"num_tokens": config.num_tokens}


def mean_shape(train: Objects, test: Objects, turned: bool) -> float:
    """3D error of answering every object with the training objects' mean landmarks.

    ``turned``: about the vertical to each object's best fit, as if its heading were known.
    """
    fit, judged = stack_truths(train), stack_truths(test)
    angles = torch.arange(0, 360, 5).deg2rad() if turned else torch.zeros(1)
    c, s, z, o = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    turns = torch.stack([torch.stack([c, -s, z], -1), torch.stack([s, c, z], -1), torch.stack([z, z, o], -1)], -2)
    shapes = [(t.keypoints_3d, t.known) for t in fit]
    mean = shapes[0][0]
    for _ in range(3):  # generalised Procrustes about the vertical
        aligned = [(_best(points, mean, known, turns), known) for points, known in shapes]
        weight = torch.stack([known.float() for _, known in aligned]).sum(0).clamp_min(1)
        mean = torch.stack([points * known[:, None] for points, known in aligned]).sum(0) / weight[:, None]
    errors = [(_best(mean, t.keypoints_3d, t.known, turns) - t.keypoints_3d).norm(dim=-1)[t.known] for t in judged]
    return float(torch.cat(errors).mean())


def _best(points: Tensor, target: Tensor, known: Tensor, turns: Tensor) -> Tensor:
    turned = points @ turns.transpose(-1, -2)
    return turned[(turned - target)[:, known].square().sum((-1, -2)).argmin()]


def sift_words(
    backend: Backend, train: Objects, test: Sequence[Objects], count: int, seed: int, enlarge: int = 4
) -> list[list[Detection]]:
    """SIFT (Lowe 2004) without any learned model: the views' features, joined through ``count`` visual words.

    The words are k-means centres of the training views' descriptors (Sivic & Zisserman 2003). In each view a word's
    place is that of the feature nearest to it, so a word is a track through views and objects; tracks are triangulated
    robustly as keypoints are, a feature counting the less the farther its descriptor lies from the word. Returns the
    detections of each group of objects. Needs OpenCV (the extra ``benchmarks``).
    """
    import cv2

    finder = cv2.SIFT_create(contrastThreshold=0.01)

    def features(view: Tensor, mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
        pixels = (255 * view.permute(1, 2, 0).cpu().numpy()).astype(np.uint8)
        size = (enlarge * pixels.shape[1], enlarge * pixels.shape[0])
        grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_CUBIC)
        shown = cv2.resize(mask.cpu().numpy().astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        points, descriptors = finder.detectAndCompute(grey, cv2.dilate(shown, np.ones((9, 9), np.uint8)))
        if descriptors is None:
            return np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32)
        # RootSIFT (Arandjelović & Zisserman 2012); OpenCV counts from the first pixel's centre.
        descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-9))
        return (np.array([p.pt for p in points], np.float32) + 0.5) / size, descriptors.astype(np.float32)

    def described(thing):
        views, masks, cameras = object_views(thing, backend, torch.Generator().manual_seed(seed))
        return views, masks, cameras, [features(v, m) for v, m in zip(views, masks, strict=True)]

    known = np.concatenate([d for thing in train for _, d in described(thing)[3]])
    words, _ = kmeans2(known, min(count, len(known)), minit="++", rng=np.random.default_rng(seed))
    groups = []
    for objects in test:
        found = []
        for thing in objects:
            views, masks, cameras, per_view = described(thing)
            places = [_words_in_view(xy, d, words) for xy, d in per_view]
            xy, score = (torch.from_numpy(np.stack(part)).float() for part in zip(*places, strict=True))
            flat = Keypoints2D(xy, score, cameras)
            empty = torch.zeros(len(views), len(words), 1, 1)
            found.append(Detection(thing.name, thing.input_image, views, masks, empty, flat, flat.triangulate()))
        groups.append(found)
    return groups


def _words_in_view(xy: np.ndarray, descriptors: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place and score of each word in a view; the middle and 0 where the view has no feature."""
    if not len(xy):
        return np.full((len(words), 2), 0.5, np.float32), np.zeros(len(words), np.float32)
    distance = np.linalg.norm(words[:, None] - descriptors[None], axis=-1)
    nearest = distance.argmin(1)
    return xy[nearest], np.exp(-((distance.min(1) / 0.5) ** 2)).astype(np.float32)
