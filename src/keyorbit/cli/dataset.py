"""``keyorbit dataset``: objects with ground truth made, rendered and listed."""

from pathlib import Path
from typing import Annotated

import typer

from keyorbit.cli.options import OverwriteOption, whole_numbers
from keyorbit.cli.terminal import console, progress
from keyorbit.errors import one_of
from keyorbit.objects.paths import check_mesh, object_paths
from keyorbit.storage.outputs import OBJECT, check_output
from keyorbit.synthetic.choices import Degrees, Elevation, Objects, ObjectSeed, Shard, Side, Workers
from keyorbit.values import check_value


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
    console.print(f"{len(written)} objects in {out}")


def dataset_render(
    mesh: Annotated[Path, typer.Argument(help="A mesh file: OBJ, GLB, PLY, STL …")],
    out: Annotated[Path, typer.Option(help="The object folder to write.")],
    size: Annotated[int, typer.Option(help="Pixels a view."), Side] = 320,
    elevation: Annotated[float, typer.Option(help="Of the input view, degrees."), Elevation] = 20.0,
    azimuth: Annotated[float, typer.Option(help="Of the input view, degrees."), Degrees] = 0.0,
    up: Annotated[str, typer.Option(help="The file's upward axis, y or z.")] = "y",
    overwrite: OverwriteOption = False,
) -> None:
    """Render a mesh file: the input view and the model's six views."""
    one_of("--up", up, ("y", "z"))
    check_output(out, OBJECT, overwrite)
    check_mesh(mesh)

    from keyorbit.synthetic.dataset import render_mesh

    render_mesh(mesh, out, size, elevation, azimuth, up, overwrite)
    console.print(f"{out / 'cond.png'} and {out / 'grid.png'}")


def dataset_list(
    data: Annotated[Path | None, typer.Argument(help="A dataset folder; none for the known categories.")] = None,
) -> None:
    """List the known categories, or the objects of a folder."""
    from rich.table import Table

    if data is None:
        from keyorbit.synthetic.objects import CATEGORIES

        table = Table("category", "keypoints")
        for name, category in CATEGORIES.items():
            table.add_row(name, ", ".join(category.keypoint_names))
    else:
        object_paths(data)

        from keyorbit.cli.loading import load_all

        table = Table("object", "views", "landmarks", "caption")
        for thing in load_all(data):
            views = "to be generated" if thing.views is None else str(len(thing.views))
            known = "" if thing.truth is None else str(int(thing.truth.known.sum()))
            table.add_row(thing.name, views, known, thing.caption)
    console.print(table)
