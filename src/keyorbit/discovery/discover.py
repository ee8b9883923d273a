"""Optimise tokens until each marks one place on every object, consistently in 3D where there are cameras; no labels."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.budget import check_budget
from keyorbit.diffusion.backends.base import Backend, check_backend
from keyorbit.diffusion.model_facts import views_told
from keyorbit.diffusion.recording import check_recordings, layer_outlines
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.cache.disk import DiskCache
from keyorbit.discovery.cache.held import HeldCache
from keyorbit.discovery.choices import LOSSES, RUN, SETTINGS
from keyorbit.discovery.config import (
    DiscoverConfig,
    SettledConfig,
    checked_config,
    map_side,
    patterns,
    plain_settings,
)
from keyorbit.discovery.consistency_run import ConsistencyRun
from keyorbit.discovery.constellation_run import ConstellationRun
from keyorbit.discovery.initial import info_of
from keyorbit.discovery.live import open_live
from keyorbit.discovery.memory import open_source
from keyorbit.discovery.needs import step_needs
from keyorbit.discovery.run import DiscoveryRun, Resumed, told
from keyorbit.discovery.single_view_run import SingleViewRun
from keyorbit.discovery.source import Source, check_shares
from keyorbit.discovery.statistics import with_statistics
from keyorbit.errors import InputError
from keyorbit.objects.dataset import Objects
from keyorbit.objects.given import check_given
from keyorbit.ranks import Ranks
from keyorbit.storage.files import write_text
from keyorbit.storage.journal import Journal
from keyorbit.storage.lock import in_use
from keyorbit.storage.outputs import begin_output, check_run
from keyorbit.storage.settings import to_toml
from keyorbit.values import as_path, check_kind

log = logging.getLogger(__name__)

Report = Callable[[str, int, int, dict[str, float]], None]
Watch = Callable[[int, Tokens], bool]


def _silent(stage: str, done: int, total: int, values: dict[str, float]) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Keeping:
    """Where a run is kept, and who is told of it; see :func:`discover`. ``settings`` is what its TOML file holds."""

    out: Path | None = None
    resume: bool = False
    overwrite: bool = False
    report: Report = _silent
    watch: Watch | None = None
    settings: str = ""

    def begin(self, out: Path) -> None:
        """Take the folder, with its marker and settings, before the first checkpoint is written."""
        begin_output(out, RUN, self.overwrite, self.resume, checked=True)
        write_text(out / SETTINGS, self.settings)


def discover(
    backend: Backend,
    objects: Objects,
    config: DiscoverConfig | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    report: Report | None = None,
    ranks: Ranks | None = None,
    watch: Watch | None = None,
    overwrite: bool = False,
) -> Tokens:
    """Find tokens that mark the same places on all ``objects``.

    Args:
        out: a folder for a checkpoint every ``save_every`` steps, with the settings and the losses of the steps until
            then; with ``resume`` the run goes on from it and ends bit-identical to one that was never stopped. Only
            ``steps`` may differ then: learning rate and temperature are from there on those of a run of that length.
            The folder is new or empty, or holds an earlier run, which ``overwrite`` removes at the first checkpoint.
        report: called as ``report(stage, done, total, values)`` for the stages prepare (joint mode) or cache, plant (by
            constellation), and step; away from the CPU for several steps at once, a little later.
        ranks: the processes that share the objects (:func:`keyorbit.ranks.start_ranks`); default this one alone. Each
            ends with the same tokens; on CPUs they are bit-identical to those of one process with as many threads, on
            GPUs equal to rounding.
        watch: called every ``save_every`` steps as ``watch(steps done, the tokens that would be chosen now)``; where it
            answers False the run stops, and these are its result.

    Raises:
        InputError: no objects, objects that do not fit the model, a checkpoint of other settings, other files in
            ``out``, another process writes there, more memory is needed than there is, the loss is not finite, or a
            process is gone.
    """
    check_backend(backend)
    check_given(objects)
    config, out = checked_config(config), None if out is None else as_path(out, "out")
    settled = config.settled(backend)
    kept = Keeping(out, resume, overwrite, report or _silent, watch, to_toml(config))
    ranks = ranks or Ranks()
    if out and ranks.main:  # before the model is run on every object
        check_run(out, RUN, resume, overwrite)
    side = map_side(backend, settled.map_size)
    heads = sum(one.query.shape[1] for one in layer_outlines(backend, settled.layers, settled.maps))
    check_budget(step_needs(settled, len(objects), backend.layout.num_views, side, heads), backend.device)
    live = "draws" in settled.published
    check_recordings(backend, settled.recording, 1, 0 if live else -(-len(objects) // ranks.count))
    stage = "cache" if settled.mode == "isolated" else "prepare"

    def progress(done: int, total: int) -> None:
        kept.report(stage, done, total, {})

    source: Source
    if live:
        source = open_live(backend, objects, settled, ranks)
    else:
        source = open_source(backend, objects, settled, ranks, progress)
    return discover_from(source, settled, kept, ranks)


def discover_cached(
    cache: DiskCache,
    config: DiscoverConfig | None = None,
    out: str | Path | None = None,
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
    check_kind("cache", cache, DiskCache, "what keyorbit.open_cache returns")
    config, out = checked_config(config), None if out is None else as_path(out, "out")
    ranks, index = ranks or Ranks(), cache.index
    if config.mode != "isolated":
        raise InputError(f"{config.mode} mode runs the UNet at every step; a query cache is for isolated mode")
    if "draws" in config.published:
        raise InputError("a query cache holds warps and noise that were drawn once: leave draws out of published")
    for name, asked, there in (("maps", config.maps, index.maps), ("layers", patterns(config.layers), index.pattern)):
        if asked not in (None, there):
            raise InputError(f"{cache.folder} was built for {name} {there}, not {asked}; build another cache for those")
    check_shares(len(cache), ranks)
    settled = config.settled_as(index.pattern, index.maps, index.prepare)
    side = settled.map_size or 2 * index.latent_side
    heads = sum(layer.heads for layer in index.stored)
    check_budget(step_needs(settled, len(cache), cache.facts.layout.num_views, side, heads), cache.device)
    kept = Keeping(out, resume, overwrite, report or _silent, settings=to_toml(config))
    source = cache if cache.device.type == "cpu" else HeldCache(cache)
    return discover_from(source, settled, kept, ranks, index.dtype)


def discover_from(
    source: Source,
    config: SettledConfig,
    kept: Keeping | None = None,
    ranks: Ranks | None = None,
    queries: str = "float32",
) -> Tokens:
    """The same from queries that exist already; ``queries`` is the type that they are kept in.

    Raises:
        InputError: as :func:`discover`.
    """
    return run_to_end(start_run(source, config, ranks or Ranks()), kept or Keeping(), queries)


def run_to_end(run: DiscoveryRun, kept: Keeping, queries: str = "float32") -> Tokens:
    """All steps of a run, from where it was stopped if it is resumed; its tokens.

    Raises:
        InputError: as :func:`discover`.
    """
    with in_use(kept.out, run.ranks.main) if kept.out else nullcontext():
        return _to_end(run, kept, queries)


def _to_end(run: DiscoveryRun, kept: Keeping, queries: str) -> Tokens:
    source, config, out, began = run.source, run.config, kept.out if run.ranks.main else None, time.monotonic()
    if out:
        check_run(out, RUN, kept.resume, kept.overwrite)
    facts = source.facts
    views = views_told(facts.cameras_of, facts.layout, facts.cameras)
    settings = plain_settings(config, model=facts.fingerprint, queries=queries, **views)
    resumed = run.restore(kept.out, settings) if kept.resume and kept.out else Resumed()
    start = resumed.step
    journal = Journal((kept.out or Path()) / LOSSES, start, partial(kept.begin, kept.out or Path()), active=bool(out))
    sizes = (
        f"{len(source)} objects in {source.versions} versions each, maps of kind {config.maps}, {run.side} x {run.side}"
    )
    log.info("%d tokens for %d keypoints on %s", config.num_candidates, config.num_tokens, sizes)
    log.info("layers: %s", ", ".join(source.facts.layers))
    log.info("steps %d to %d, %d objects each, seed %d", start + 1, config.steps, config.batch, config.seed)
    if start == 0:
        run.begin(lambda done, total: kept.report("plant", done, total, {}))
    if resumed.lengthened:
        journal.begin()  # the settings: whoever resumes it again need not say how long it has become
    at_once, unread = read_together(source.device), []
    for done in range(start + 1, config.steps + 1):
        unread.append(run.step(done - 1))
        saved = done % config.save_every == 0 or done == config.steps
        if saved or len(unread) == at_once:
            first = done - len(unread)
            for number, terms in enumerate(told(unread, first, config.steps, journal.kept), first + 1):
                entry = terms | {"seconds": time.monotonic() - began}
                journal.add({"step": number, **entry})
                kept.report("step", number, config.steps, entry)
            unread = []
        if saved:
            run.check(done, journal.kept)
        if out and saved:
            journal.begin()
            run.save(out, done, settings)
            journal.step = done
        if kept.watch and done % config.save_every == 0:
            tokens = _chosen(run, queries)
            if not kept.watch(done, tokens):
                return with_statistics(run, tokens)
    journal.begin()  # where there was no step to do
    log.info("%d steps in %.1f s", config.steps - start, time.monotonic() - began)
    return with_statistics(run, _chosen(run, queries))


def read_together(device: torch.device) -> int:
    """Steps whose losses are read at once. To be read, a GPU has to finish all that it was given; a CPU has."""
    return 1 if device.type == "cpu" else 20


def start_run(source: Source, config: SettledConfig, ranks: Ranks) -> DiscoveryRun:
    """The run of the method; of single views where there are no cameras, or where StableKeypoints' choices are."""
    cameras = source.facts.cameras
    if cameras is None or config.published:
        return SingleViewRun(source, config, ranks)
    if config.method == "constellation":
        return ConstellationRun(source, config, ranks, cameras)
    return ConsistencyRun(source, config, ranks, cameras)


def _chosen(run: DiscoveryRun, queries: str) -> Tokens:
    selection, source = run.select(), run.source
    log.info("kept tokens %s; mirror pairs: %s", selection.tokens.tolist(), list(selection.pairs) or "none")
    info = replace(info_of(source.facts, run.config, queries), objects=len(source), pairs=selection.pairs)
    candidates, kept = run.tokens.embedding.detach().cpu(), selection.tokens.tolist()
    others = [i for i in range(len(candidates)) if i not in kept]
    if selection.places is None or selection.form is None:
        # Maps that are a softmax among the tokens are what they were only beside all of them.
        return Tokens(candidates[kept], info, candidates[others] if run.kind == "stablekeypoints" else None)
    info = replace(info, places=_triples(selection.places[kept + others]), form=_triples(selection.form.rows))
    return Tokens(candidates[kept], info, candidates[others])


def _triples(points: Float[Tensor, "point 3"]) -> tuple[tuple[float, float, float], ...]:
    return tuple((x, y, z) for x, y, z in points.tolist())
