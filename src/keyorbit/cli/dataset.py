"""``keyorbit dataset``: objects with ground truth made, rendered and listed."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyorbit.cli.engine import EngineOption, check_alone, chosen_pool
from keyorbit.cli.inputs import given_paths
from keyorbit.cli.options import OverwriteOption, StrictOption, whole_numbers
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, errors, progress
from keyorbit.devices import CPU
from keyorbit.errors import InputError, one_of
from keyorbit.objects.paths import mesh_names, mesh_paths
from keyorbit.objects.shards.places import is_elsewhere
from keyorbit.objects.sources import object_sources
from keyorbit.ranks import first_launched, start_ranks
from keyorbit.storage.content import text_of
from keyorbit.storage.folder_names import folder_names, readable
from keyorbit.storage.outputs import OBJECT, check_output
from keyorbit.synthetic.choices import (
    AUTO_UP,
    MESH_SIDE,
    UPS,
    Degrees,
    Elevation,
    Objects,
    ObjectSeed,
    Shard,
    Side,
    Workers,
)
from keyorbit.values import check_value

if TYPE_CHECKING:
    from keyorbit.synthetic.meshes.objects import Rendered


def dataset_make(
    out: Annotated[Path, typer.Argument(help="The folder to fill.")],
    category: Annotated[str, typer.Option(help="Which kind of object; see 'dataset list'.")] = "chair",
    objects: Annotated[int, typer.Option(help="How many."), Objects] = 60,
    seed: Annotated[int, typer.Option(help="0 to 999; another seed, other objects."), ObjectSeed] = 0,
    size: Annotated[int, typer.Option(help="Pixels a view."), Side] = 64,
    workers: Annotated[int, typer.Option(help="Processes."), Workers] = 1,
    turn: Annotated[
        float, typer.Option(help="The same objects seen from so many degrees further round."), Degrees
    ] = 0.0,
    shard: Annotated[
        str, typer.Option(help="Such as 0/4: every fourth object from the first on, for one of 4 machines.")
    ] = "0/1",
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Write procedural objects with six views and true keypoints."""
    share = whole_numbers("--shard", shard, "/")
    check_value("--shard", share, Shard)

    from keyorbit.synthetic.plan import DatasetSpec

    spec = DatasetSpec(category, objects, seed, size, turn, (share[0], share[1]))
    spec.folders(out, overwrite)

    from keyorbit.synthetic.dataset import make_dataset

    with progress() as tick:
        written = make_dataset(out, spec, workers, lambda i, n: tick("render", i, n, {}), overwrite)
    tell_json(json_file, "dataset make", {"out": str(out), "folders": [str(folder) for folder in written]})
    console.print(f"{len(written)} objects in {out}")


def dataset_render(
    meshes: Annotated[
        list[Path],
        typer.Argument(
            help="Mesh files (GLB, glTF, OBJ, PLY, STL …), folders of such, shards, addresses, patterns, or - for a "
            "list on stdin."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The object folder to write; for several, that of their folders.")],
    size: Annotated[int, typer.Option(help="Pixels a view."), Side] = MESH_SIDE,
    elevation: Annotated[float, typer.Option(help="Of the input view, degrees."), Elevation] = 20.0,
    azimuth: Annotated[float, typer.Option(help="Of the input view, degrees."), Degrees] = 0.0,
    up: Annotated[
        str, typer.Option(help="The files' upward axis: x, y, z, -x, -y, -z; auto: what they tell, or their shapes.")
    ] = AUTO_UP,
    landmarks: Annotated[
        Path | None,
        typer.Option(help="True keypoints: a KeypointNet annotation file, or points by name; default: beside a mesh."),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            help="Processes, for several meshes; default 1. With --engine ray its workers: how many, or 1-64: as many "
            "as Ray finds use for; default all that fit."
        ),
    ] = None,
    engine: EngineOption = None,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
) -> None:
    """Render mesh files: the input view and the model's six views.

    One file becomes the object folder --out; several, or folders, become OUT/NAME each, shared by the processes of a
    launcher, and what is there stays: the same command goes on where it was stopped.
    """
    one_of("--up", up, UPS)
    pool = None if engine is None else chosen_pool(engine, workers, None, CPU)
    processes = 1 if pool is not None or workers is None else _processes(workers)
    given = given_paths(meshes)
    away = object_sources([path for path in given if is_elsewhere(path)])
    here = [path for path in given if not is_elsewhere(path)]
    found = mesh_paths(here)
    single = len(given) == 1 and (given[0].is_file() if here else away[0].key is None and len(away) == 1)
    names = [*mesh_names(found), *(source.name for source in away)]
    folders = [out] if single else [out / name for name in folder_names(names)]
    if pool is not None:
        check_alone(not single)
    for folder in folders:
        check_output(folder, OBJECT, overwrite or not single)
    if landmarks is not None:
        text_of(landmarks)
        if away:
            raise InputError(f"--landmarks is for mesh files on this disk, and {away[0].where} is none: leave one out")

    from keyorbit.synthetic.meshes.jobs import MeshJob, MeshView
    from keyorbit.synthetic.meshes.objects import render_meshes, write_mesh
    from keyorbit.synthetic.meshes.plan import planned

    view = MeshView(size, elevation, azimuth)
    main = single or first_launched()
    jobs = planned(found, folders[: len(found)], view, up, landmarks) if found else []
    jobs += [
        MeshJob(Path(source.name), folder, view, up, source=source)
        for source, folder in zip(away, folders[len(found) :], strict=True)
    ]
    if single:
        done = [write_mesh(jobs[0], overwrite)]
        console.print(f"{out / 'cond.png'} and {out / 'grid.png'}")
    else:
        ranks = start_ranks("cpu")
        mine, spread = jobs[ranks.index :: ranks.count], None
        if pool is not None:
            from keyorbit.cli.work.rendering_on_ray import render_on_ray

            spread = partial(render_on_ray, pool, out)
        with progress(ranks.main) as tick:
            done = render_meshes(mine, processes, lambda i, n: tick("render", i, n, {}), overwrite, strict, spread)
        ranks.wait()
        earlier = sum(one.there for one in done)
        made = sum((folder / "meta.json").is_file() for folder in folders)
        if ranks.main:
            console.print(f"{made} objects in {out}" + (f" ({earlier} of them were there already)" if earlier else ""))
    for line in _told(done):
        console.print(line, soft_wrap=True)
    problems = [one.problem for one in done if one.problem]
    if main:
        there = [str(folder) for folder in folders if (folder / "meta.json").is_file()]
        tell_json(json_file, "dataset render", {"out": str(out), "folders": there, "left_out": problems})
    for problem in problems[:-1]:
        errors.print(f"left out: {readable(problem)}", markup=False, highlight=False, soft_wrap=True)
    if problems:
        others = f"; see {len(problems) - 1} more above" if problems[1:] else ""
        raise InputError(f"{len(problems)} of {len(done)} meshes are left out: {problems[-1]}{others}")


def _processes(text: str) -> int:
    check_value("--workers", int(text) if text.isdecimal() and len(text) < 10 else text, Workers)
    return int(text)


def _told(done: "list[Rendered]") -> Iterator[str]:
    """What was judged of meshes and not read in their files, each in a line."""
    for axis in sorted({one.up for one in done if one.judged}):
        which = [one.job.mesh.name for one in done if one.judged and one.up == axis]
        yield f"judged by the shape, {axis} is up in {_named(which)}: --up y or --up z overrides"
    if plain := [one.job.mesh.name for one in done if one.plain]:
        yield f"no colours are in {_named(plain)}: drawn in a grey darker than the ground"


def _named(names: list[str]) -> str:
    return f"{readable(names[0])} and {len(names) - 1} more" if names[1:] else readable(names[0])


def dataset_list(
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Dataset folders, files, shards, patterns, or - for a list on stdin; none for the known categories.",
            show_default=False,
        ),
    ] = None,
    json_file: JsonOption = None,
) -> None:
    """List the known categories, or the objects of a folder."""
    from rich.table import Table

    if not data:
        from keyorbit.synthetic.objects import CATEGORIES

        table = Table("category", "keypoints")
        for name, category in CATEGORIES.items():
            table.add_row(name, ", ".join(category.keypoint_names))
        told: dict[str, Any] = {
            "categories": {name: list(category.keypoint_names) for name, category in CATEGORIES.items()}
        }
    else:
        paths = given_paths(data)
        object_sources(paths)

        from keyorbit.cli.work.several import load_all

        table, rows = Table("object", "views", "landmarks", "caption"), []
        for thing in (thing for path in paths for thing in load_all(path)):
            views = "to be generated" if thing.views is None else str(len(thing.views))
            known = "" if thing.truth is None else str(int(thing.truth.known.sum()))
            table.add_row(thing.name, views, known, thing.caption)
            count = None if thing.truth is None else int(thing.truth.known.sum())
            many = None if thing.views is None else len(thing.views)
            rows.append({"object": thing.name, "views": many, "landmarks": count, "caption": thing.caption})
        told = {"objects": rows}
    tell_json(json_file, "dataset list", told)
    console.print(table)
