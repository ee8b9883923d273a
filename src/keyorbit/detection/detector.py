"""Keypoints of new objects: one picture (the model generates the views) or given views; 2D on each, 3D if it can."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from keyorbit.detection.choices import NOISES, PEAKS, WARPS, Space
from keyorbit.detection.input_camera import InputCamera, search_input_camera
from keyorbit.diffusion.attention import Pass
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import token_heatmaps
from keyorbit.diffusion.prepare import PrepareConfig, prepare, same_cameras
from keyorbit.diffusion.queries import LayerQueries, QueryCache
from keyorbit.diffusion.recording import record_passes
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.discover import DiscoverConfig, config_from_settings, map_side
from keyorbit.errors import InputError
from keyorbit.geometry.alignment import Form
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.constellation import read_constellation, upright
from keyorbit.geometry.evidence import read_evidence
from keyorbit.geometry.heatmaps import (
    argmax_rowcol,
    argmax_xy,
    gaussian,
    normalize,
    resize,
    soft_argmax_xy,
    windowed_soft_argmax_xy,
)
from keyorbit.geometry.hull import hull_points, silhouette_distance, silhouettes
from keyorbit.geometry.keypoints import Keypoints2D, Keypoints3D
from keyorbit.geometry.views import Layout
from keyorbit.geometry.warps import Warp, inside, unwarp
from keyorbit.objects.dataset import ObjectViews, load_dataset
from keyorbit.objects.pictures import middle_square, to_tensor

log = logging.getLogger(__name__)

HULL_POINTS = 400
# Heat, against a flat map's, that a view has everywhere: where it sees nothing its place is the common one.
_A_LITTLE = 0.01


@dataclass(frozen=True)
class DetectConfig:
    """How keypoints are read: ``noises`` draws of noise and ``warps`` warped versions are averaged, all from one batch.

    peak: ``soft`` expected position, ``window`` expected position near the peak, ``argmax`` the peak's pixel; None is
    soft, but window for a single view's attention, which is never 0 and would pull to the middle of the picture.
    window: half the side of the window, in sides of the view; the score is the heatmap's mass inside it, less a flat
    map's. space: how points in space are found: all tokens together as their ``constellation`` has it, each from the
    product of the views' ``evidence`` within the visual hull, or by ``triangulation`` of the places in the views;
    measured against each other in docs/decisions.md. None is constellation for tokens that have one and views that
    stand upright, else evidence.

    With the constellation and no ``peak`` asked for, a view's place is read near the common point: its heatmap times a
    Gaussian of standard deviation ``nearness`` (sides) there. A view that marks something else then has a low score.
    """

    noises: int = NOISES
    warps: int = WARPS
    peak: str | None = None
    window: float = 0.12
    seed: int = 0
    space: Space | None = None
    nearness: float = 0.08


@dataclass(frozen=True, eq=False)
class Detection:
    """What was found on one object, with the views it was found on (0…1); no 3D where there is a single view.

    pairs: keypoints that mark mirror images of each other, such as a left and a right leg.
    """

    name: str
    input_image: Image.Image
    views: Float[Tensor, "view 3 height width"]
    masks: Bool[Tensor, "view height width"]
    heatmaps: Float[Tensor, "view token map_height map_width"]
    keypoints_2d: Keypoints2D
    keypoints_3d: Keypoints3D | None
    input_camera: InputCamera | None = None
    input_heatmaps: Float[Tensor, "token map_height map_width"] | None = None
    pairs: tuple[tuple[int, int], ...] = ()


class KeypointDetector:
    """Reads discovered tokens on new objects.

    Raises:
        InputError: the tokens were made for other weights than the backend's, or with cameras that it was not told of.
    """

    def __init__(self, backend: Backend, tokens: Tokens, config: DetectConfig | None = None) -> None:
        made_for = tokens.info.model_fingerprint
        if made_for and made_for != backend.fingerprint:
            raise InputError(
                f"these tokens were discovered on model {tokens.info.model} ({made_for}), not on {backend.name} "
                f"({backend.fingerprint}); use that model, or discover tokens on this one"
            )
        if tokens.info.cameras_of and not backend.cameras_of:
            raise InputError(
                f"these tokens were discovered with the cameras of {tokens.info.cameras_of}: load the model with "
                f"cameras_of={tokens.info.cameras_of!r}"
            )
        self.backend, self.tokens = backend, tokens
        self.config = config or DetectConfig()
        settings = tokens.info.settings
        self.discovered = (config_from_settings(settings) if settings else DiscoverConfig()).settled(backend)
        read = f"maps of kind {self.discovered.maps}, timestep {self.discovered.prepare.timestep}"
        log.info(
            "%d tokens from %d objects: %s, layers %s", len(tokens), tokens.info.objects, read, self.discovered.layers
        )

    def detect(self, picture: str | Path | Image.Image | ObjectViews) -> Keypoints2D:
        """The keypoints on the input picture and on every view; ``.triangulate()`` gives them in 3D if it can."""
        return self.detect_object(picture).keypoints_2d

    @torch.no_grad()
    def detect_object(self, picture: str | Path | Image.Image | ObjectViews) -> Detection:
        """Everything found on one object.

        Raises:
            InputError: the picture cannot be read, or the object's views do not fit the model.
        """
        thing, began = _as_object(picture), time.monotonic()
        settings = PrepareConfig(
            timestep=self.discovered.prepare.timestep, warps=self.config.warps, noises=self.config.noises
        )
        generator = torch.Generator().manual_seed(self.config.seed)
        prepared, views, cameras = prepare(thing, self.backend, settings, generator)
        assert self.discovered.layers is not None
        passes = record_passes(self.backend, prepared, self.discovered.layers)
        grid = self._heatmaps(passes, "grid", self.backend.layout)
        everything = normalize(_average(grid, Warp(prepared.warps.to(grid))))
        heatmaps, condition = everything[:, : len(self.tokens)], None
        if self.backend.has_condition_pass:
            condition = self._heatmaps(passes, "condition", Layout(1, 1)).mean(0)[0, : len(self.tokens)]
        distance = silhouette_distance(prepared.masks[0]).to(heatmaps)
        keypoints, points = self._keypoints(everything, condition, distance, cameras)
        camera = None
        # Azimuth 0 for the input picture is a convention of the model's own rig.
        if points is not None and condition is not None and same_cameras(cameras, self.backend.cameras):
            camera = _input_camera(thing, keypoints, points, condition.cpu(), distance.cpu())
        how = "given" if thing.views is not None and len(views) > 1 else "generated"
        sight = "one view" if len(views) == 1 else f"{len(views)} {how} views"
        log.info("%s: %d keypoints on %s, in %.1f s", thing.name, len(self.tokens), sight, time.monotonic() - began)
        return Detection(
            thing.name,
            thing.input_image,
            views,
            prepared.masks[0],
            heatmaps,
            keypoints,
            points,
            camera,
            condition,
            self.tokens.info.pairs,
        )

    def _keypoints(
        self,
        everything: Float[Tensor, "view token_and_helper side side"],
        condition: Float[Tensor, "token side side"] | None,
        distance: Float[Tensor, "view height width"],
        cameras: Cameras | None,
    ) -> tuple[Keypoints2D, Keypoints3D | None]:
        """The keypoints in the views, and in space where there are cameras."""
        heatmaps = everything[:, : len(self.tokens)]
        if cameras is None:
            return self._read(heatmaps, condition, None), None
        here, space = cameras.to(heatmaps.device), self._space(cameras)
        if space == "triangulation":
            keypoints = self._read(heatmaps, condition, cameras)
            return keypoints, keypoints.triangulate()
        around = None
        if space == "evidence":
            xyz = read_evidence(heatmaps, here, distance).xyz
        else:
            info, shape = self.tokens.info, self.discovered.constellation
            places = torch.tensor(info.places).to(heatmaps)
            form = Form.from_rows(torch.tensor(info.form).to(heatmaps)) if info.form else None
            xyz = read_constellation(everything, here, places, distance, shape, count=len(self.tokens), form=form).xyz
            around = here.project(xyz) if self.config.peak is None else None
        keypoints = self._read(heatmaps, condition, cameras, around)
        return keypoints, keypoints.lift(xyz.cpu())

    def _space(self, cameras: Cameras) -> Space:
        """How points in space are found.

        Raises:
            InputError: by a constellation, which the tokens do not have.
        """
        able = len(self.tokens.info.places) == len(self.tokens) + len(self.tokens.helpers)
        if self.config.space == "constellation" and not able:
            raise InputError('these tokens have no constellation: discover them with method = "constellation"')
        return self.config.space or ("constellation" if able and upright(cameras) else "evidence")

    def _heatmaps(
        self, passes: dict[Pass, list[LayerQueries]], which: Pass, layout: Layout
    ) -> Float[Tensor, "version view token_and_helper side side"]:
        """Those of the tokens, then of the helpers: together, as they were found, since some maps share a softmax."""
        layers = passes[which]
        cache = QueryCache(tuple(layers), len(layers[0].query))
        items = torch.arange(cache.versions)
        tokens = torch.cat([self.tokens.embedding, self.tokens.helpers]).to(self.backend.device)
        kind, side = self.discovered.maps, map_side(self.backend, self.discovered.map_size)
        assert kind is not None
        return token_heatmaps(cache.maps(tokens, items, kind), layout, kind, side, self.discovered.temperature)

    def _read(
        self, heatmaps: Tensor, condition: Tensor | None, cameras: Cameras | None, around: Tensor | None = None
    ) -> Keypoints2D:
        """Places and scores in the views, ``around`` the places [view token 2] that are given, and in the input."""
        looked = heatmaps
        if around is not None:
            height, width = heatmaps.shape[-2:]
            window = gaussian(around, height, width, self.config.nearness * width)
            looked = normalize((heatmaps + _A_LITTLE / (height * width)) * window)
        return Keypoints2D(
            self._peak(looked).cpu(),
            self._score(heatmaps, looked).cpu(),
            None if cameras is None else cameras.to("cpu"),
            None if condition is None else self._peak(condition).cpu(),
            None if condition is None else self._score(condition, condition).cpu(),
        )

    def _peak(self, heatmaps: Float[Tensor, "*batch height width"]) -> Float[Tensor, "*batch 2"]:
        flat = self.backend.cameras is None and self.discovered.maps != "logits"
        peak = self.config.peak or ("window" if flat else "soft")
        if peak == "soft":
            return soft_argmax_xy(heatmaps)
        if peak == "argmax":
            return argmax_xy(heatmaps)
        if peak == "window":
            return windowed_soft_argmax_xy(heatmaps, round(self.config.window * int(heatmaps.shape[-1])))
        raise InputError(f"peak is one of {', '.join(PEAKS)}, not {self.config.peak!r}")

    def _score(
        self, heatmaps: Float[Tensor, "*batch height width"], looked: Float[Tensor, "*batch height width"]
    ) -> Float[Tensor, "*batch"]:
        """The heatmap's mass in the window round the peak, beyond what a flat map has there: 1 for a spot, 0 flat.

        looked: the maps whose peak that is.
        """
        height, width = heatmaps.shape[-2:]
        radius = round(self.config.window * width)
        row, col = rearrange(argmax_rowcol(looked), "... c -> c ... 1")
        near_row = (torch.arange(height, device=heatmaps.device) - row).abs() <= radius
        near_col = (torch.arange(width, device=heatmaps.device) - col).abs() <= radius
        window = near_row[..., :, None] & near_col[..., None, :]
        flat = window.to(heatmaps.dtype).mean((-2, -1))
        mass = (heatmaps * window).sum((-2, -1))
        score: Tensor = ((mass - flat) / (1 - flat)).clamp(0, 1)
        return score


def _average(
    maps: Float[Tensor, "version view token height width"], warp: Warp
) -> Float[Tensor, "view token height width"]:
    """The versions' maps brought back; each pixel's mean is over the versions that show it, of which 0 always does."""
    shown = inside(warp, maps.shape[-2], maps.shape[-1])[:, :, None].to(maps)
    return (unwarp(maps, warp) * shown).sum(0) / shown.sum(0)


def _input_camera(
    thing: ObjectViews,
    keypoints: Keypoints2D,
    points: Keypoints3D,
    condition: Float[Tensor, "token height width"],
    distance: Float[Tensor, "view mask_height mask_width"],
) -> InputCamera:
    """The input picture's camera, from its heatmaps and its outline."""
    assert keypoints.cameras is not None
    assert keypoints.input_xy is not None
    assert keypoints.input_score is not None
    picture, alpha = to_tensor(thing.input_image.crop(middle_square(thing.input_image)))
    mask = silhouettes(picture[None])[0] if alpha is None else alpha
    size = (distance.shape[-2], distance.shape[-1])
    outline = silhouette_distance(resize(mask.float(), size) > 0.5)
    hull = hull_points(distance, keypoints.cameras, HULL_POINTS, torch.Generator().manual_seed(0))
    weights = keypoints.input_score * points.score
    return search_input_camera(points.xyz, weights, condition, keypoints.input_xy, keypoints.cameras, hull, outline)


def _as_object(picture: str | Path | Image.Image | ObjectViews) -> ObjectViews:
    if isinstance(picture, ObjectViews):
        return picture
    if isinstance(picture, Image.Image):
        return ObjectViews("picture", picture)
    found = load_dataset(picture)
    if len(found) != 1:
        raise InputError(f"{picture} holds {len(found)} objects; detect them one by one")
    return found[0]
