"""``keyorbit discover``: keypoint tokens from objects or from a cache."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from keyorbit.cli.dry_run import DryRunOption, tell_discovery
from keyorbit.cli.inputs import given_paths, named_paths
from keyorbit.cli.options import (
    BackgroundOption,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    LayersOption,
    LayoutOption,
    MapsOption,
    MaskOption,
    NoisesOption,
    OverwriteOption,
    RigOption,
    StrategyOption,
    SubjectsOption,
    TimestepOption,
    UnetOption,
    WarpsOption,
    base_settings,
    changed,
    check_model_options,
    checked_masks,
    timesteps_of,
)
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.choices import TokensMode
from keyorbit.discovery.choices import RUN, SETTINGS, Method, Preset, index_file
from keyorbit.discovery.config import DiscoverConfig, preset_config
from keyorbit.discovery.ranges import Rate
from keyorbit.errors import InputError
from keyorbit.objects.background import CUT_OUTS
from keyorbit.ranks import start_ranks
from keyorbit.storage.files import write_json
from keyorbit.storage.outputs import check_run
from keyorbit.values import Amount, Count, Seed


def discover_command(
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Dataset folders, pictures or folders of them, shards (.tar, .parquet), addresses (s3://…), patterns "
            "such as '*.jpg', or - for a list on stdin; not needed with --cache.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="What 'keyorbit cache' wrote: needs no weights, and sets what is not given here."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="As for 'keyorbit cache'; 'tiny' unless told otherwise.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file of settings, such as a run's discover.toml; options win over it."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="stablekeypoints: every setting as that paper's code has it; other options win over it."),
        Preset,
    ] = None,
    tokens: Annotated[int | None, typer.Option(help="Keypoints to find; default 16."), Count] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Tokens optimised, the best of which become keypoints; default 32."), Count
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="constellation (default): tokens keep their places in a common shape; consistency: views agree."
        ),
        Method,
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="isolated (fast, the default), joint (through the UNet), or alone (so, without text)."),
        TokensMode,
    ] = None,
    maps: MapsOption = None,
    layers: LayersOption = None,
    steps: Annotated[int | None, typer.Option(help="Optimisation steps; default 500."), Amount] = None,
    batch: Annotated[int | None, typer.Option(help="Objects a step; default 8."), Count] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate; default 0.05."), Rate] = None,
    subjects: SubjectsOption = None,
    strategy: StrategyOption = None,
    timestep: TimestepOption = None,
    warps: WarpsOption = None,
    noises: NoisesOption = None,
    background: BackgroundOption = None,
    mask: MaskOption = None,
    seed: Annotated[int | None, typer.Option(help="Of tokens, noise and batches; default 0."), Seed] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped, or on to more --steps.")] = False,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    dry_run: DryRunOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Find keypoint tokens on the objects of DATA; no labels."""
    timesteps = timesteps_of(timestep)
    if dry_run and cache is not None:
        raise InputError("--dry-run is for DATA: from a cache there is nothing to prepare")
    paths = given_paths(data or ())
    if bool(paths) == (cache is not None):
        raise InputError("give either DATA or --cache")
    if cache is not None:
        given = {"--timestep": timestep, "--warps": warps, "--noises": noises, "--unet": unet}
        given |= {"--rig": rig, "--layout": layout, "--background": background, "--mask": mask}
        if besides := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{' and '.join(besides)} cannot be chosen any more: --cache was built with its own")
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    check_run(out, RUN, resume, overwrite)
    if preset is not None and config is not None:
        raise InputError("give either --preset or --config: each names all settings")
    named = None if preset is None else preset_config(cast(Preset, preset))
    base = named or base_settings(DiscoverConfig, config, out / SETTINGS, resume)
    count = base.num_tokens if tokens is None else tokens
    most = base.num_candidates if candidates is None else candidates
    wanted = changed(
        base,
        prepare=changed(base.prepare, timestep=timesteps, warps=warps, noises=noises),
        single_view=changed(base.single_view, subjects=subjects, strategy=strategy),
        num_tokens=count,
        num_candidates=max(count, most),
        method=method,
        mode=mode,
        maps=maps,
        layers=layers,
        steps=steps,
        batch=batch,
        rate=rate,
        seed=seed,
    )
    if cache is not None:
        index_file(cache)
    masks = checked_masks(paths, background, mask)

    from keyorbit.cli.cutouts import show_cut_outs, write_cut_outs
    from keyorbit.cli.work.loading import cache_of_model, load_model, show_place, use_device
    from keyorbit.cli.work.several import load_all
    from keyorbit.discovery.cache.disk import open_cache
    from keyorbit.discovery.discover import discover, discover_cached

    device = use_device(device, deterministic)
    ranks = start_ranks(device)
    began = time.monotonic()
    with progress(ranks.main) as tick:
        if cache is not None:
            opened = cache_of_model(open_cache(cache, device), model)
            show_place("queries", opened.device)
            count, found = len(opened), discover_cached(opened, wanted, out, resume, tick, ranks, overwrite)
        else:
            objects = [thing for path in paths for thing in load_all(path, background, masks)]
            backend = load_model(model or "tiny", device, dtype, unet, view_choice)
            if dry_run:
                if ranks.main:
                    tell_json(json_file, "discover", tell_discovery(backend, objects, wanted, out))
                return
            count, several = len(objects), backend.layout.num_views > 1
            if ranks.main:
                show_cut_outs(objects, several, str(out / CUT_OUTS))
            found = discover(backend, objects, wanted, out, resume, tick, ranks, overwrite=overwrite)
    if not ranks.main:
        return
    found.save(out / "tokens.safetensors")
    if cache is None:
        write_cut_outs(out / CUT_OUTS, objects, several)
    about: dict[str, Any] = {
        "format": "keyorbit-run-1",
        "data": named_paths([cache] if cache else paths),
        "objects": count,
    }
    about |= {"model": found.info.model} | ({} if preset is None else {"preset": preset})
    about |= {"seconds": time.monotonic() - began, "config": asdict(wanted)}
    write_json(out / "run.json", about)
    made = {"out": str(out), "tokens": str(out / "tokens.safetensors"), "keypoints": len(found)}
    tell_json(json_file, "discover", {**made, "run": about})
    console.print(f"{len(found)} keypoints from {count} objects: {out / 'tokens.safetensors'}")
