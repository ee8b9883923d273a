"""Optimise tokens until each marks one place on every object, consistently in 3D where there are cameras; no labels."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.attention import Mode, cross_attention_layers
from keyorbit.backends.base import Backend
from keyorbit.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from keyorbit.data import Objects
from keyorbit.errors import InputError
from keyorbit.heatmaps import argmax_xy, normalize, resize
from keyorbit.objective import (
    LossWeights,
    Observed,
    SingleViewWeights,
    objective,
    repeat_cameras,
    single_view_objective,
    token_maps,
    with_peak_one,
)
from keyorbit.prepare import PrepareConfig, Prepared, prepare_all, silhouette_distance
from keyorbit.query_cache import MapKind, build_query_cache, unet_maps
from keyorbit.selection import Selection, select_tokens
from keyorbit.tokens import Tokens, TokensInfo
from keyorbit.triangulation import reprojection_error, triangulate

Report = Callable[[str, int, int, dict[str, float]], None]
SINGLE_VIEW_MAPS: MapKind = "attention"  # measured against the others: docs/decisions.md


@dataclass(frozen=True)
class DiscoverConfig:
    """The settings of a discovery.

    num_tokens: keypoints reported; num_candidates: tokens optimised, the best of which are kept; layers: names or
    patterns; maps: what a token's map is, see :func:`keyorbit.objective.token_maps`. None stands for the model's own
    layers, timestep and maps (:meth:`settled`). map_size: side of a view's map, 0 for twice the latent's.
    temperature: of the softmax over pixels, at the end and for detection; it falls there from ``start_temperature``
    within the first four fifths of the steps. The average over heads and layers leaves logits far below 1, and flat
    maps have next to no gradient; warm ones let the tokens look around before they settle. weights: of the objective
    with cameras; single_view: of the one without.
    """

    num_tokens: int = 16
    num_candidates: int = 32
    layers: str | tuple[str, ...] | None = None
    mode: Mode = "isolated"
    maps: MapKind | None = None
    steps: int = 500
    batch: int = 8
    rate: float = 0.05
    seed: int = 0
    map_size: int = 0
    start_temperature: float = 0.05
    temperature: float = 0.01
    weights: LossWeights = field(default_factory=LossWeights)
    single_view: SingleViewWeights = field(default_factory=SingleViewWeights)
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

    def settled(self, backend: Backend) -> "DiscoverConfig":
        """The same with the model's own layers, timestep and maps where none were given."""
        timestep = backend.default_timestep if self.prepare.timestep is None else self.prepare.timestep
        return replace(
            self,
            layers=backend.default_layers if self.layers is None else self.layers,
            maps=(SINGLE_VIEW_MAPS if backend.cameras is None else "logits") if self.maps is None else self.maps,
            prepare=replace(self.prepare, timestep=timestep),
        )

    def temperature_at(self, step: int) -> float:
        """The temperature of that step: a geometric fall, then constant."""
        progress = min(1.0, step / max(1.0, 0.8 * self.steps))
        return float(self.start_temperature * (self.temperature / self.start_temperature) ** progress)


def map_side(backend: Backend, asked: int) -> int:
    """The side of a view's map: what was asked for, or twice the latent's."""
    return asked or 2 * backend.latent_size(backend.view_size, backend.view_size)[0]


class _Run:
    """The state of one discovery: where its maps come from, its tokens and optimizer."""

    def __init__(self, backend: Backend, objects: Objects, config: DiscoverConfig, report: Report) -> None:
        assert config.layers is not None
        assert config.maps is not None
        self.backend, self.config = backend, config
        self.layers, self.kind = config.layers, config.maps
        self.side = map_side(backend, config.map_size)
        self.prepared, cameras = prepare_all(
            objects, backend, config.prepare, config.seed, lambda i, n: report("prepare", i, n, {})
        )
        self.cameras = None if cameras is None else cameras.to(backend.device)
        self.cache = None
        if config.mode == "isolated":
            self.cache = build_query_cache(
                backend,
                self.prepared,
                self.layers,
                lambda i, n: report("cache", i, n, {}),
                normalizer=config.maps == "attention",
            )
        size = (self.side, self.side)
        self.distances = [resize(silhouette_distance(p.masks[0]), size) for p in self.prepared]
        self.tokens = _initial_tokens(backend, config).to(backend.device)
        self.optimizer = torch.optim.Adam(self.tokens.parameters(), lr=config.rate)

    def maps(
        self, objects: Int[Tensor, " object"], temperature: float
    ) -> Float[Tensor, "object version view token side side"]:
        """Maps of the chosen objects as :func:`token_maps` makes them."""
        versions = len(self.prepared[0].latents)
        if self.cache is None:
            chosen, embedding = [self.prepared[i] for i in objects.tolist()], self.tokens.embedding
            layers = unet_maps(self.backend, chosen, embedding, self.layers, self.config.mode, self.kind)
        else:
            items = rearrange(objects[:, None] * versions + torch.arange(versions), "o n -> (o n)")
            layers = self.cache.maps(self.tokens.embedding, items, self.kind)
        maps = token_maps(layers, self.backend.layout, self.kind, self.side, temperature)
        return rearrange(maps, "(o n) ... -> o n ...", n=versions)

    def observe(self, objects: Int[Tensor, " object"], temperature: float) -> Observed:
        maps = self.maps(objects, temperature)
        heatmaps = maps if self.kind == "logits" else normalize(maps)
        chosen = [self.prepared[i] for i in objects.tolist()]
        masks = torch.stack([_grown(p, self.side) for p in chosen]).to(heatmaps)
        warps = torch.stack([p.warps for p in chosen]).to(heatmaps)
        distance = torch.stack([self.distances[i] for i in objects.tolist()]).to(heatmaps)
        return Observed(heatmaps, warps, masks, distance)

    def terms(self, objects: Int[Tensor, " object"], temperature: float) -> dict[str, Float[Tensor, ""]]:
        """The terms of the objective on the chosen objects."""
        if self.cameras is not None:
            return objective(self.observe(objects, temperature), self.cameras, self.config.weights)
        maps = self.maps(objects, temperature)
        warps = torch.stack([self.prepared[i].warps for i in objects.tolist()]).to(maps)
        maps = with_peak_one(maps) if self.kind == "logits" else maps
        return single_view_objective(maps, warps, self.config.single_view, self.config.num_tokens)

    def step(self, number: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.config.seed * 10**7 + number)
        count = min(self.config.batch, len(self.prepared))
        picked = torch.randperm(len(self.prepared), generator=generator)[:count]
        terms = self.terms(picked, self.config.temperature_at(number))
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
        heatmaps, points, errors, beside = [], [], [], []
        for start in range(0, len(self.prepared), self.config.batch):
            batch = torch.arange(start, min(start + self.config.batch, len(self.prepared)))
            seen = self.observe(batch, self.config.temperature)
            heatmaps.append(seen.heatmaps[:, 0])
            if self.cameras is not None:
                beside.append((seen.heatmaps * (1 - seen.masks[:, :, :, None])).sum((-2, -1)).mean((1, 2)))
            found, error = self._locate(seen)
            points.append(found)
            errors.append(error)
        off_object = torch.cat(beside) if beside else None
        ranked = torch.cat(heatmaps), torch.cat(points), torch.cat(errors)
        return select_tokens(*ranked, self.config.num_tokens, off_object=off_object)

    def _locate(self, seen: Observed) -> tuple[Float[Tensor, "object token _"], Float[Tensor, "object token"]]:
        """Where the tokens are in space and how far their views disagree; without cameras, in the first view and 0."""
        if self.cameras is None:
            peaks = argmax_xy(seen.heatmaps[:, 0, 0])
            return peaks, torch.zeros_like(peaks[..., 0])
        places = seen.places()
        cameras = repeat_cameras(self.cameras, seen.heatmaps.shape[1])
        found = triangulate(places, cameras)
        return found, reprojection_error(found, places, cameras).mean(1)


def discover(
    backend: Backend,
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
    config = (config or DiscoverConfig()).settled(backend)
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
    return Tokens(run.tokens.embedding.detach().cpu()[chosen], replace(_info(backend, config), pairs=selection.pairs))


def config_from_settings(settings: dict[str, Any]) -> DiscoverConfig:
    """The config that :class:`TokensInfo` keeps as plain values."""
    values = dict(settings)
    prepare = dict(values.pop("prepare"))
    prepare["scale"] = tuple(prepare["scale"])
    if isinstance(values["layers"], list):
        values["layers"] = tuple(values["layers"])
    parts: dict[str, Any] = {
        "prepare": PrepareConfig(**prepare),
        "weights": LossWeights(**values.pop("weights")),
        "single_view": SingleViewWeights(**values.pop("single_view", {})),
    }
    return DiscoverConfig(**values, **parts)


def untrained(backend: Backend, config: DiscoverConfig) -> Tokens:
    """The candidates as they are before the first step, the first ``num_tokens`` of them: the baseline to beat."""
    config = config.settled(backend)
    tokens = _initial_tokens(backend, config)
    return Tokens(tokens.embedding.detach()[: config.num_tokens], _info(backend, config))


def _initial_tokens(backend: Backend, config: DiscoverConfig) -> Tokens:
    generator = torch.Generator().manual_seed(config.seed)
    return Tokens.initialise(backend.text_statistics(generator), config.num_candidates, generator)


def _info(backend: Backend, config: DiscoverConfig) -> TokensInfo:
    assert config.layers is not None
    assert config.prepare.timestep is not None
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
