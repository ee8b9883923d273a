"""``keyorbit cache``: the model's queries, kept for discovery."""

from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.inputs import given_paths
from keyorbit.cli.options import (
    BackgroundOption,
    BatchOption,
    CompileOption,
    DataArgument,
    DeterministicOption,
    DeviceOption,
    DtypeOption,
    LayersOption,
    LayoutOption,
    MapsOption,
    MaskOption,
    ModelOption,
    NoisesOption,
    RigOption,
    TimestepOption,
    UnetOption,
    WarpsOption,
    changed,
    check_model_options,
    checked_masks,
    timesteps_of,
)
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, errors, progress
from keyorbit.devices import AUTO
from keyorbit.discovery.choices import STORED_TYPES, check_cache_place, check_stored
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.ranks import start_ranks
from keyorbit.values import Seed


def cache_command(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="The cache's folder; a build that was stopped there goes on.")],
    model: ModelOption = "tiny",
    maps: MapsOption = None,
    layers: LayersOption = None,
    timestep: TimestepOption = None,
    warps: WarpsOption = None,
    noises: NoisesOption = None,
    background: BackgroundOption = None,
    mask: MaskOption = None,
    seed: Annotated[int, typer.Option(help="Of warps and noise."), Seed] = 0,
    store: Annotated[str, typer.Option(help=f"{', '.join(STORED_TYPES)}: what queries are kept in.")] = "float32",
    batch: BatchOption = None,
    compile: CompileOption = False,
    json_file: JsonOption = None,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
    deterministic: DeterministicOption = False,
) -> None:
    """Run the model once on every object of DATA and keep its queries: 'discover --cache' then needs no weights."""
    timesteps = timesteps_of(timestep)
    check_stored(store)
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    prepare = changed(DiscoverConfig().prepare, timestep=timesteps, warps=warps, noises=noises)
    wanted = changed(DiscoverConfig(), layers=layers, maps=maps, seed=seed, prepare=prepare)
    check_cache_place(out)
    paths = given_paths(data)
    masks = checked_masks(paths, background, mask)

    from keyorbit.cli.work.loading import load_model, use_device
    from keyorbit.cli.work.several import given_objects
    from keyorbit.discovery.cache.build import begun, build_cache, check_room
    from keyorbit.discovery.cache.index import plan_cache

    device = use_device(device, deterministic)
    ranks = start_ranks(device)  # before the model is loaded: each process has a GPU of its own
    objects = given_objects(paths, background, masks)
    backend = load_model(model, device, dtype, unet, view_choice, compile)
    with progress(ranks.main) as tick:
        index = plan_cache(backend, objects, wanted, store, lambda i, n: tick("read", i, n, {}))
        index = begun(index, out, backend)
        check_room(index, out)
        if ranks.main:
            size = f"{index.bytes / 1e6:,.1f} MB for {len(index.objects)} objects in {index.versions} versions"
            errors.print(f"{out} will take {size}", highlight=False, soft_wrap=True, markup=False)
        build_cache(backend, objects, index, out, lambda i, n: tick("cache", i, n, {}), ranks, batch)
    if ranks.main:
        made = {"objects": len(index.objects), "versions": index.versions, "bytes": index.bytes}
        tell_json(json_file, "cache", {"out": str(out), **made})
        console.print(f"{len(index.objects)} objects in {out}: keyorbit discover --cache {out} --out RUN")
