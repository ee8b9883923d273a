"""Optimise tokens until each marks one place on every object, consistently in 3D where there are cameras; no labels."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.attention import Mode
from keyorbit.backends.base import Backend
from keyorbit.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from keyorbit.data import Objects
from keyorbit.errors import InputError
from keyorbit.heatmaps import argmax_xy, gaussian_kl, normalize, resize
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
from keyorbit.prepare import PrepareConfig
from keyorbit.query_cache import MapKind
from keyorbit.ranks import Ranks
from keyorbit.selection import Selection, choose_tokens
from keyorbit.sources import ModelFacts, Source, model_facts, open_source
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
        seed = self.seed if self.prepare.seed is None else self.prepare.seed
        return replace(
            self,
            layers=backend.default_layers if self.layers is None else self.layers,
            maps=(SINGLE_VIEW_MAPS if backend.cameras is None else "logits") if self.maps is None else self.maps,
            prepare=replace(self.prepare, timestep=timestep, seed=seed),
        )

    def temperature_at(self, step: int) -> float:
        """The temperature of that step: a geometric fall, then constant."""
        progress = min(1.0, step / max(1.0, 0.8 * self.steps))
        return float(self.start_temperature * (self.temperature / self.start_temperature) ** progress)


def map_side(backend: Backend, asked: int) -> int:
    """The side of a view's map: what was asked for, or twice the latent's."""
    return asked or 2 * backend.latent_size(backend.view_size, backend.view_size)[0]


class _Run:
    """The state of one discovery: what it reads, its tokens and optimizer.

    Each process computes the maps of its own objects; they are then put together, and every process has the whole
    batch, the same loss and the same step. Gradients are summed object by object in the order of the batch, so the
    number of processes does not show in the tokens.
    """

    def __init__(self, source: Source, config: DiscoverConfig, ranks: Ranks) -> None:
        assert config.maps is not None
        self.source, self.config, self.ranks, self.kind = source, config, ranks, config.maps
        self.side = config.map_size or 2 * source.facts.latent_side
        self.cameras = None if source.facts.cameras is None else source.facts.cameras.to(source.device)
        self.tokens = _initial_tokens(source.facts.text_rows, config).to(source.device)
        self.optimizer = torch.optim.Adam(self.tokens.parameters(), lr=config.rate)

    def maps(
        self, objects: Sequence[int], tokens: Sequence[Float[Tensor, "token width"]], temperature: float
    ) -> Float[Tensor, "object version view token side side"]:
        """Maps of the chosen objects as :func:`token_maps` makes them, each object with tokens of its own."""
        layout = self.source.facts.layout
        found: dict[int, Tensor] = {}
        for place, number in enumerate(objects):
            if self.ranks.owns(number):
                layers = self.source.maps(number, tokens[place])
                found[place] = token_maps(layers, layout, self.kind, self.side, temperature)
        each = (self.source.versions, layout.num_views, len(tokens[0]), self.side, self.side)
        return self._together(len(objects), found, each)

    def _together(self, count: int, found: dict[int, Tensor], each: tuple[int, ...]) -> Tensor:
        """What all processes found, in one tensor; ours keeps its gradient."""
        if self.ranks.count == 1:
            return torch.stack([found[place] for place in range(count)])
        whole = torch.zeros(count, *each, device=self.source.device)
        for place, value in found.items():
            whole[place] = value.detach()
        whole = self.ranks.sum(whole)
        return torch.stack([found.get(place, whole[place]) for place in range(count)])

    def observe(self, objects: Sequence[int], maps: Float[Tensor, "object version view token side side"]) -> Observed:
        """The maps as heatmaps, with silhouettes and warps at their size."""
        versions, views, size = self.source.versions, maps.shape[2], (self.side, self.side)
        warps, masks, distances = {}, {}, {}
        for place, number in enumerate(objects):
            if self.ranks.owns(number):
                shown = self.source.shown(number)
                warps[place] = shown.warps.to(maps)
                masks[place] = _grown(shown.masks, size).to(maps)
                distances[place] = resize(shown.distance, size).to(maps)
        count = len(objects)
        return Observed(
            maps if self.kind == "logits" else normalize(maps),
            self._together(count, warps, (versions, views, 2, 3)),
            self._together(count, masks, (versions, views, *size)),
            self._together(count, distances, (views, *size)),
        )

    def terms(self, seen: Observed, maps: Tensor) -> dict[str, Float[Tensor, ""]]:
        """The terms of the objective on a batch."""
        if self.cameras is not None:
            return objective(seen, self.cameras, self.config.weights)
        maps = with_peak_one(maps) if self.kind == "logits" else maps
        return single_view_objective(maps, seen.warps, self.config.single_view, self.config.num_tokens)

    def step(self, number: int) -> dict[str, float]:
        generator = torch.Generator().manual_seed(self.config.seed * 10**7 + number)
        picked = torch.randperm(len(self.source), generator=generator)[: self.config.batch].tolist()
        copies = [self.tokens.embedding.detach().clone().requires_grad_() for _ in picked]
        maps = self.maps(picked, copies, self.config.temperature_at(number))
        terms = self.terms(self.observe(picked, maps), maps)
        total = terms["total"]
        if not total.isfinite():
            raise InputError(f"the loss is {total.item()} at step {number}; lower the rate or the weights")
        if total.requires_grad:  # not where every object of this batch is another process's
            total.backward()  # type: ignore[no-untyped-call]
        gradients = torch.stack([torch.zeros_like(x) if x.grad is None else x.grad for x in copies])
        self.tokens.embedding.grad = self.ranks.sum(gradients).sum(0)
        # A linear decay to a tenth: the tokens settle instead of circling.
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * (1 - 0.9 * number / max(1, self.config.steps))
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in terms.items()}

    @torch.no_grad()
    def select(self) -> Selection:
        """Rank the candidates on all objects, a batch at a time."""
        sharpness, points, errors = [], [], []
        for start in range(0, len(self.source), self.config.batch):
            batch = range(start, min(start + self.config.batch, len(self.source)))
            maps = self.maps(batch, [self.tokens.embedding] * len(batch), self.config.temperature)
            seen = self.observe(batch, maps)
            sharpness.append(gaussian_kl(seen.heatmaps[:, 0]).mean(1))
            found, error = self._locate(seen)
            points.append(found)
            errors.append(error)
        return choose_tokens(torch.cat(sharpness), torch.cat(points), torch.cat(errors), self.config.num_tokens)

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
    ranks: Ranks | None = None,
) -> Tokens:
    """Find tokens that mark the same places on all ``objects``.

    Args:
        out: a folder for a checkpoint every ``save_every`` steps; with ``resume`` the run goes on from it and ends
            bit-identical to one that was never stopped.
        report: called as ``report(stage, done, total, values)`` for the stages prepare (joint mode) or cache, and step.
        ranks: the processes that share the objects (:func:`keyorbit.ranks.start_ranks`); default this one alone. Each
            ends with the same tokens, bit-identical to those of one process with as many threads.

    Raises:
        InputError: no objects, objects that do not fit the model, a checkpoint of other settings, or a process is gone.
    """
    config = (config or DiscoverConfig()).settled(backend)
    assert config.layers is not None
    assert config.maps is not None
    tell, ranks = report or _silent, ranks or Ranks()
    stage = "cache" if config.mode == "isolated" else "prepare"

    def progress(done: int, total: int) -> None:
        tell(stage, done, total, {})

    source = open_source(backend, objects, config.layers, config.maps, config.mode, config.prepare, ranks, progress)
    return discover_from(source, config, out, resume, report, ranks)


def discover_from(
    source: Source,
    config: DiscoverConfig,
    out: Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    ranks: Ranks | None = None,
    queries: str = "float32",
) -> Tokens:
    """The same from queries that exist already; ``config`` is settled, and ``queries`` is the type they are kept in.

    Raises:
        InputError: as :func:`discover`.
    """
    ranks, report = ranks or Ranks(), report or _silent
    run = _Run(source, config, ranks)
    settings = _settings(config, model=source.facts.fingerprint, queries=queries)
    start = _restore(run, out, settings) if resume and out else 0
    began = time.monotonic()
    for number in range(start, config.steps):
        terms = run.step(number)
        report("step", number + 1, config.steps, terms | {"seconds": time.monotonic() - began})
        if out and ranks.main and ((number + 1) % config.save_every == 0 or number + 1 == config.steps):
            _save(run, out, number + 1, settings)
    chosen = run.select().tokens.cpu()
    return Tokens(run.tokens.embedding.detach().cpu()[chosen], _info(source.facts, config, queries))


def config_from_settings(settings: dict[str, Any]) -> DiscoverConfig:
    """The config that :class:`TokensInfo` keeps as plain values."""
    values = dict(settings)
    prepare = dict(values.pop("prepare"))
    prepare["scale"] = tuple(prepare["scale"])
    if isinstance(prepare["timestep"], list):
        prepare["timestep"] = tuple(prepare["timestep"])
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
    assert config.layers is not None
    facts = model_facts(backend, config.layers, backend.cameras)
    return Tokens(
        _initial_tokens(facts.text_rows, config).embedding.detach()[: config.num_tokens], _info(facts, config)
    )


def _initial_tokens(text_rows: Float[Tensor, "row width"], config: DiscoverConfig) -> Tokens:
    return Tokens.initialise(text_rows, config.num_candidates, torch.Generator().manual_seed(config.seed))


def _info(facts: ModelFacts, config: DiscoverConfig, queries: str = "float32") -> TokensInfo:
    assert config.prepare.timestep is not None
    return TokensInfo(
        model=facts.name,
        model_fingerprint=facts.fingerprint,
        layers=facts.layers,
        timestep=config.prepare.timestep,
        mode=config.mode,
        seed=config.seed,
        version=version("keyorbit"),
        settings=_settings(config),
        queries=queries,
    )


def _silent(stage: str, done: int, total: int, values: dict[str, float]) -> None:
    """Reports nothing."""


def _settings(config: DiscoverConfig, **more: str) -> dict[str, Any]:
    """The config as JSON keeps it, where tuples are lists."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config) | more))
    return settings


def _grown(
    masks: Bool[Tensor, "version view height width"], size: tuple[int, int]
) -> Float[Tensor, "version view new_height new_width"]:
    """Silhouettes at the maps' size, a pixel wider: a heatmap on an edge may lean over it."""
    return torch.nn.functional.max_pool2d(resize(masks.float(), size), 3, stride=1, padding=1)


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
