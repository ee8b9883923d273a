"""Optimise tokens until each marks one place on every object, consistently in 3D where there are cameras; no labels."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.tokens import Tokens, TokensInfo
from keyorbit.discovery.cache.disk import DiskCache
from keyorbit.discovery.choices import RUN
from keyorbit.discovery.config import DiscoverConfig, config_from_settings, map_side, patterns, plain_settings
from keyorbit.discovery.constellation_run import ConstellationRun
from keyorbit.discovery.run import DiscoveryRun, initial_tokens
from keyorbit.discovery.sources import ModelFacts, Source, check_shares, model_facts, open_source
from keyorbit.errors import InputError
from keyorbit.objects.dataset import Objects
from keyorbit.ranks import Ranks
from keyorbit.storage.outputs import begin_output, check_run

__all__ = [
    "DiscoverConfig",
    "config_from_settings",
    "discover",
    "discover_cached",
    "discover_from",
    "map_side",
    "tokens_info",
    "untrained",
]

log = logging.getLogger(__name__)

Report = Callable[[str, int, int, dict[str, float]], None]
Watch = Callable[[int, Tokens], bool]


def discover(
    backend: Backend,
    objects: Objects,
    config: DiscoverConfig | None = None,
    out: Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    ranks: Ranks | None = None,
    watch: Watch | None = None,
    overwrite: bool = False,
) -> Tokens:
    """Find tokens that mark the same places on all ``objects``.

    Args:
        out: a folder for a checkpoint every ``save_every`` steps; with ``resume`` the run goes on from it and ends
            bit-identical to one that was never stopped. The folder is new or empty, or holds an earlier run, which goes
            at the first step with ``overwrite``.
        report: called as ``report(stage, done, total, values)`` for the stages prepare (joint mode) or cache, plant (by
            constellation), and step.
        ranks: the processes that share the objects (:func:`keyorbit.ranks.start_ranks`); default this one alone. Each
            ends with the same tokens, bit-identical to those of one process with as many threads.
        watch: called every ``save_every`` steps as ``watch(steps done, the tokens that would be chosen now)``; where it
            answers False the run stops, and these are its result.

    Raises:
        InputError: no objects, objects that do not fit the model, a checkpoint of other settings, other files in
            ``out``, or a process is gone.
    """
    config = (config or DiscoverConfig()).settled(backend)
    assert config.layers is not None
    assert config.maps is not None
    tell, ranks = report or _silent, ranks or Ranks()
    if out and ranks.main:  # before the model is run on every object
        check_run(out, RUN, resume, overwrite)
    stage = "cache" if config.mode == "isolated" else "prepare"

    def progress(done: int, total: int) -> None:
        tell(stage, done, total, {})

    source = open_source(backend, objects, config.layers, config.maps, config.mode, config.prepare, ranks, progress)
    return discover_from(source, config, out, resume, report, ranks, watch=watch, overwrite=overwrite)


def discover_cached(
    cache: DiskCache,
    config: DiscoverConfig | None = None,
    out: Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    ranks: Ranks | None = None,
    overwrite: bool = False,
) -> Tokens:
    """The same from a cache on disk, without the model; from a float32 cache the tokens are bit-identical.

    Layers, maps, timestep, warps and noise are the cache's. The seed is that of tokens and batches.

    Raises:
        InputError: joint mode, layers or maps that are not the cache's, and as :func:`discover`.
    """
    config, ranks, index = config or DiscoverConfig(), ranks or Ranks(), cache.index
    if config.mode != "isolated":
        raise InputError("joint mode runs the UNet at every step; a query cache is for isolated mode")
    for name, asked, there in (("maps", config.maps, index.maps), ("layers", patterns(config.layers), index.pattern)):
        if asked not in (None, there):
            raise InputError(f"{cache.folder} was built for {name} {there}, not {asked}; build another cache for those")
    check_shares(len(cache), ranks)
    config = replace(config, maps=index.maps, layers=index.pattern, prepare=index.prepare)
    return discover_from(cache, config, out, resume, report, ranks, index.dtype, overwrite=overwrite)


def discover_from(
    source: Source,
    config: DiscoverConfig,
    out: Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    ranks: Ranks | None = None,
    queries: str = "float32",
    watch: Watch | None = None,
    overwrite: bool = False,
) -> Tokens:
    """The same from queries that exist already; ``config`` is settled, and ``queries`` is the type they are kept in.

    Raises:
        InputError: as :func:`discover`.
    """
    ranks, report = ranks or Ranks(), report or _silent
    if out and ranks.main:
        check_run(out, RUN, resume, overwrite)
    by_constellation = config.method == "constellation" and source.facts.cameras is not None
    run = (ConstellationRun if by_constellation else DiscoveryRun)(source, config, ranks)
    # No cameras of somebody's choice are None, as in checkpoints of versions that had no choice.
    chosen = source.facts.cameras_of or None
    settings = plain_settings(config, model=source.facts.fingerprint, queries=queries, cameras_of=chosen)
    start = run.restore(out, settings) if resume and out else 0
    sizes = (
        f"{len(source)} objects in {source.versions} versions each, maps of kind {config.maps}, {run.side} x {run.side}"
    )
    log.info("%d tokens for %d keypoints on %s", config.num_candidates, config.num_tokens, sizes)
    log.info("layers: %s", ", ".join(source.facts.layers))
    log.info("steps %d to %d, %d objects each, seed %d", start + 1, config.steps, config.batch, config.seed)
    began = time.monotonic()

    def claim() -> None:
        if out and ranks.main:
            begin_output(out, RUN, overwrite, resume)

    if start == 0:
        run.begin(lambda done, total: report("plant", done, total, {}))
    for number in range(start, config.steps):
        terms = run.step(number)
        if number == start:  # nothing is written, or goes, before there is something to keep
            claim()
        report("step", number + 1, config.steps, terms | {"seconds": time.monotonic() - began})
        if out and ranks.main and ((number + 1) % config.save_every == 0 or number + 1 == config.steps):
            run.save(out, number + 1, settings)
        if watch and (number + 1) % config.save_every == 0:
            tokens = _chosen(run, source, queries)
            if not watch(number + 1, tokens):
                return tokens
    if start >= config.steps:
        claim()
    log.info("%d steps in %.1f s", config.steps - start, time.monotonic() - began)
    return _chosen(run, source, queries)


def _chosen(run: DiscoveryRun, source: Source, queries: str) -> Tokens:
    selection = run.select()
    log.info("kept tokens %s; mirror pairs: %s", selection.tokens.tolist(), list(selection.pairs) or "none")
    info = replace(_info(source.facts, run.config, queries), objects=len(source), pairs=selection.pairs)
    candidates, kept = run.tokens.embedding.detach().cpu(), selection.tokens.tolist()
    if selection.places is None or selection.form is None:
        return Tokens(candidates[kept], info)
    others = [i for i in range(len(candidates)) if i not in kept]
    info = replace(info, places=_triples(selection.places[kept + others]), form=_triples(selection.form.rows))
    return Tokens(candidates[kept], info, candidates[others])


def _triples(points: Float[Tensor, "point 3"]) -> tuple[tuple[float, float, float], ...]:
    return tuple((x, y, z) for x, y, z in points.tolist())


def untrained(backend: Backend, config: DiscoverConfig) -> Tokens:
    """The candidates as they are before the first step, the first ``num_tokens`` of them: the baseline to beat."""
    config = config.settled(backend)
    assert config.layers is not None
    facts = model_facts(backend, config.layers, backend.cameras)
    start = initial_tokens(facts.text_rows, config).embedding.detach()
    return Tokens(start[: config.num_tokens], _info(facts, config))


def tokens_info(backend: Backend, config: DiscoverConfig) -> TokensInfo:
    """What tokens of a settled config tell about themselves."""
    assert config.layers is not None
    return _info(model_facts(backend, config.layers, backend.cameras), config)


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
        libraries={name: version(name) for name in ("torch", "diffusers", "transformers")},
        settings=plain_settings(config),
        queries=queries,
        cameras_of=facts.cameras_of,
    )


def _silent(stage: str, done: int, total: int, values: dict[str, float]) -> None:
    """Reports nothing."""
