"""Optimise tokens until each marks one place on every object, consistently in 3D; no labels."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit import losses
from keyorbit.attention import Mode, cross_attention_layers
from keyorbit.backends.zero123plus import Zero123PlusBackend
from keyorbit.cameras import Cameras
from keyorbit.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from keyorbit.data import Objects
from keyorbit.errors import InputError
from keyorbit.heatmaps import LayerMaps, normalize, resize, soft_argmax_xy, spatial_softmax, view_maps
from keyorbit.prepare import PrepareConfig, Prepared, prepare_all, silhouette_distance
from keyorbit.query_cache import build_query_cache, unet_maps
from keyorbit.selection import Selection, select_tokens
from keyorbit.tokens import Tokens, TokensInfo
from keyorbit.triangulation import reprojection_error, triangulate
from keyorbit.views import Layout
from keyorbit.warps import Warp

MapKind = Literal["logits", "attention"]
Report = Callable[[str, int, int, dict[str, float]], None]


@dataclass(frozen=True)
class LossWeights:
    """How much each term of the objective counts.

    geometric: reprojection of the triangulated point over all views and warped versions, in squared sides of a view;
    spread: spatial variance of the heatmaps, the same unit; separation: hinge that keeps the tokens' 3D points
    ``margin`` world units apart; silhouette: distance of the projected 3D points from the object, in sides of a view;
    on_object: heatmap mass outside the silhouette; sharpening: squared error to a Gaussian at the peak
    (StableKeypoints' form; has almost no gradient for attention maps that start near 1/93).
    """

    geometric: float = 5.0
    spread: float = 0.25
    separation: float = 10.0
    silhouette: float = 1.0
    on_object: float = 0.0
    sharpening: float = 0.0
    margin: float = 0.25


@dataclass(frozen=True)
class DiscoverConfig:
    """The settings of a discovery.

    num_tokens: keypoints reported; num_candidates: tokens optimised, the best of which are kept; maps: ``logits``
    (averaged over heads and layers, then a softmax over the view's pixels) or ``attention`` (softmax over text and
    tokens, then divided by its sum over the view). map_size: side of a view's map, 0 for twice the latent's.
    temperature: of the softmax over pixels, at the end and for detection; it falls there from ``start_temperature``
    within the first four fifths of the steps. The average over heads and layers leaves logits far below 1, and flat
    maps have next to no gradient; warm ones let the tokens look around before they settle.
    """

    num_tokens: int = 16
    num_candidates: int = 32
    layers: str = "*"
    mode: Mode = "isolated"
    maps: MapKind = "logits"
    steps: int = 500
    batch: int = 8
    rate: float = 0.05
    seed: int = 0
    map_size: int = 0
    start_temperature: float = 0.05
    temperature: float = 0.01
    weights: LossWeights = field(default_factory=LossWeights)
    prepare: PrepareConfig = field(default_factory=lambda: PrepareConfig(warps=2))
    save_every: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.num_tokens <= self.num_candidates:
            raise InputError(
                f"{self.num_tokens} keypoints cannot be chosen from {self.num_candidates} tokens: "
                "ask for 1 or more, and for at least as many candidates"
            )
        if self.steps < 0 or self.batch < 1:
            raise InputError("the number of steps must be 0 or more, and the batch 1 or more")
        if min(self.temperature, self.start_temperature) <= 0:
            raise InputError("temperatures must be above 0")

    def temperature_at(self, step: int) -> float:
        """The temperature of that step: a geometric fall, then constant."""
        progress = min(1.0, step / max(1.0, 0.8 * self.steps))
        return float(self.start_temperature * (self.temperature / self.start_temperature) ** progress)


@dataclass(frozen=True, eq=False)
class Observed:
    """A batch as the objective sees it: heatmaps that sum to 1 over a view, and how each view was warped.

    masks: 1 on the object, warped likewise; distance: from the silhouette of the unwarped views.
    """

    heatmaps: Float[Tensor, "object version view token height width"]
    warps: Float[Tensor, "object version view 2 3"]
    masks: Float[Tensor, "object version view height width"]
    distance: Float[Tensor, "object view height width"]

    def places(self) -> Float[Tensor, "object version_view token 2"]:
        """Expected positions in the unwarped views, all versions' views in one axis."""
        xy = soft_argmax_xy(self.heatmaps)
        return rearrange(Warp(self.warps).inverse().apply(xy), "o n v t c -> o (n v) t c")


def objective(seen: Observed, cameras: Cameras, weights: LossWeights) -> dict[str, Float[Tensor, ""]]:
    """The terms of the objective and their weighted ``total``.

    Un-warping before the triangulation makes equivariance and cross-view consistency one term: every version of every
    view has to point at the same place in space.
    """
    places = seen.places()
    everywhere = repeat_cameras(cameras, seen.heatmaps.shape[1])
    points = triangulate(places, everywhere)
    flat = rearrange(seen.heatmaps, "o n v t h w -> (o n) v t h w")
    terms = {
        "geometric": (everywhere.project(points) - places).square().sum(-1).mean(),
        "spread": losses.spread(flat),
        "separation": losses.separation(points, weights.margin),
        "silhouette": losses.off_silhouette(points, cameras, seen.distance),
        "on_object": losses.on_object(flat, rearrange(seen.masks, "o n v h w -> (o n) v h w")),
    }
    if weights.sharpening:
        terms["sharpening"] = losses.sharpening(flat / flat.amax((-2, -1), keepdim=True).detach())
    total = torch.stack([getattr(weights, name) * value for name, value in terms.items()]).sum()
    return terms | {"total": total}


def repeat_cameras(cameras: Cameras, versions: int) -> Cameras:
    """The cameras once for each version, in the order of :meth:`Observed.places`."""
    return cameras.select(list(range(len(cameras))) * versions)


def token_heatmaps(
    maps: Sequence[LayerMaps], layout: Layout, kind: MapKind, side: int, temperature: float
) -> Float[Tensor, "item view token side side"]:
    """Maps of all layers as one heatmap per view and token that sums to 1 over the view."""
    together = view_maps(maps, layout, (side, side))
    return spatial_softmax(together, temperature) if kind == "logits" else normalize(together)


def map_side(backend: Zero123PlusBackend, asked: int) -> int:
    """The side of a view's map: what was asked for, or twice the latent's."""
    return asked or 2 * backend.latent_size(backend.view_size, backend.view_size)[0]


class _Run:
    """The state of one discovery: where its maps come from, its tokens and optimizer."""

    def __init__(
        self,
        backend: Zero123PlusBackend,
        objects: Objects,
        config: DiscoverConfig,
        report: Report,
    ) -> None:
        self.backend, self.config = backend, config
        self.side = map_side(backend, config.map_size)
        self.prepared, cameras = prepare_all(
            objects, backend, config.prepare, config.seed, lambda i, n: report("prepare", i, n, {})
        )
        self.cameras = cameras.to(backend.device)
        self.cache = None
        if config.mode == "isolated":
            self.cache = build_query_cache(
                backend,
                self.prepared,
                config.layers,
                lambda i, n: report("cache", i, n, {}),
                normalizer=config.maps != "logits",
            )
        size = (self.side, self.side)
        self.distances = [resize(silhouette_distance(p.masks[0]), size) for p in self.prepared]
        self.tokens = _initial_tokens(backend, config).to(backend.device)
        self.optimizer = torch.optim.Adam(self.tokens.parameters(), lr=config.rate)

    def observe(self, objects: Int[Tensor, " object"], temperature: float) -> Observed:
        chosen = [self.prepared[i] for i in objects.tolist()]
        versions = len(chosen[0].latents)
        if self.cache is None:
            maps = unet_maps(
                self.backend,
                chosen,
                self.tokens.embedding,
                self.config.layers,
                self.config.mode,
                self.config.maps,
            )
        else:
            items = rearrange(objects[:, None] * versions + torch.arange(versions), "o n -> (o n)")
            read = self.cache.token_logits if self.config.maps == "logits" else self.cache.token_maps
            maps = read(self.tokens.embedding, items)
        heatmaps = token_heatmaps(maps, self.backend.layout, self.config.maps, self.side, temperature)
        masks = torch.stack([_grown(p, self.side) for p in chosen]).to(heatmaps)
        warps = torch.stack([p.warps for p in chosen]).to(heatmaps)
        distance = torch.stack([self.distances[i] for i in objects.tolist()]).to(heatmaps)
        return Observed(rearrange(heatmaps, "(o n) ... -> o n ...", n=versions), warps, masks, distance)

    def step(self, number: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.config.seed * 10**7 + number)
        count = min(self.config.batch, len(self.prepared))
        picked = torch.randperm(len(self.prepared), generator=generator)[:count]
        terms = objective(self.observe(picked, self.config.temperature_at(number)), self.cameras, self.config.weights)
        if not terms["total"].isfinite():
            raise InputError(f"the loss is {terms['total'].item()} at step {number}; lower the rate or the weights")
        self.optimizer.zero_grad(set_to_none=True)
        terms["total"].backward()  # type: ignore[no-untyped-call]
        # A linear decay to a tenth: the tokens settle instead of circling.
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * (1 - 0.9 * number / max(1, self.config.steps))
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in terms.items()}

    @torch.no_grad()
    def select(self) -> Selection:
        """Rank the candidates on all objects, a batch at a time."""
        heatmaps, points, errors = [], [], []
        for start in range(0, len(self.prepared), self.config.batch):
            batch = torch.arange(start, min(start + self.config.batch, len(self.prepared)))
            seen = self.observe(batch, self.config.temperature)
            places = seen.places()
            cameras = repeat_cameras(self.cameras, seen.heatmaps.shape[1])
            found = triangulate(places, cameras)
            heatmaps.append(seen.heatmaps[:, 0])
            points.append(found)
            errors.append(reprojection_error(found, places, cameras).mean(1))
        return select_tokens(torch.cat(heatmaps), torch.cat(points), torch.cat(errors), self.config.num_tokens)


def discover(
    backend: Zero123PlusBackend,
    objects: Objects,
    config: DiscoverConfig | None = None,
    out: Path | None = None,
    resume: bool = False,
    report: Report | None = None,
) -> Tokens:
    """Find tokens that mark the same places on all ``objects``.

    Args:
        out: a folder for a checkpoint every ``save_every`` steps; with ``resume`` the run goes on from it and ends
            bit-identical to one that was never stopped.
        report: called as ``report(stage, done, total, values)`` for the stages prepare, cache and step.

    Raises:
        InputError: no objects, objects that do not fit the model, or a checkpoint of other settings.
    """
    config = config or DiscoverConfig()
    report = report or (lambda stage, done, total, values: None)
    run = _Run(backend, objects, config, report)
    settings = _settings(config, model=backend.fingerprint)
    start = _restore(run, out, settings) if resume and out else 0
    began = time.monotonic()
    for number in range(start, config.steps):
        terms = run.step(number)
        report("step", number + 1, config.steps, terms | {"seconds": time.monotonic() - began})
        if out and ((number + 1) % config.save_every == 0 or number + 1 == config.steps):
            _save(run, out, number + 1, settings)
    selection = run.select()
    chosen = selection.tokens.cpu()
    return Tokens(run.tokens.embedding.detach().cpu()[chosen], _info(backend, config))


def config_from_settings(settings: dict[str, Any]) -> DiscoverConfig:
    """The config that :class:`TokensInfo` keeps as plain values."""
    values = dict(settings)
    prepare = dict(values.pop("prepare"))
    prepare["scale"] = tuple(prepare["scale"])
    return DiscoverConfig(
        **{**values, "weights": LossWeights(**values.pop("weights")), "prepare": PrepareConfig(**prepare)}
    )


def untrained(backend: Zero123PlusBackend, config: DiscoverConfig) -> Tokens:
    """The candidates as they are before the first step, the first ``num_tokens`` of them: the baseline to beat."""
    tokens = _initial_tokens(backend, config)
    return Tokens(tokens.embedding.detach()[: config.num_tokens], _info(backend, config))


def _initial_tokens(backend: Zero123PlusBackend, config: DiscoverConfig) -> Tokens:
    generator = torch.Generator().manual_seed(config.seed)
    return Tokens.initialise(backend.text_statistics(generator), config.num_candidates, generator)


def _info(backend: Zero123PlusBackend, config: DiscoverConfig) -> TokensInfo:
    return TokensInfo(
        model=backend.name,
        model_fingerprint=backend.fingerprint,
        layers=tuple(cross_attention_layers(backend.unet, config.layers)),
        timestep=config.prepare.timestep,
        mode=config.mode,
        seed=config.seed,
        version=version("keyorbit"),
        settings=_settings(config),
    )


def _settings(config: DiscoverConfig, **more: str) -> dict[str, Any]:
    """The config as JSON keeps it, where tuples are lists."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config) | more))
    return settings


def _grown(prepared: Prepared, side: int) -> Float[Tensor, "version view side side"]:
    """Silhouettes at the maps' size, a pixel wider: a heatmap on an edge may lean over it."""
    masks = resize(prepared.masks.float(), (side, side))
    return torch.nn.functional.max_pool2d(masks, 3, stride=1, padding=1)


def _save(run: _Run, out: Path, step: int, settings: dict[str, Any]) -> None:
    tensors = {"embedding": run.tokens.embedding} | optimizer_tensors(run.optimizer)
    save_checkpoint(out / "checkpoint.safetensors", tensors, {"step": step, "settings": settings})


def _restore(run: _Run, out: Path, settings: dict[str, Any]) -> int:
    path = out / "checkpoint.safetensors"
    if not path.exists():
        return 0
    tensors, metadata = load_checkpoint(path)
    differing = [key for key, value in settings.items() if metadata["settings"].get(key) != value]
    if differing:
        raise InputError(f"{path} was made with other settings ({', '.join(differing)}); start without --resume")
    run.tokens.embedding.data.copy_(tensors["embedding"])
    restore_optimizer(run.optimizer, tensors)
    return int(metadata["step"])
