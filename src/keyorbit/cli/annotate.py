"""``keyorbit annotate``: correct a run's keypoints object by object, in the browser."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keyorbit.cli.options import (
    BackgroundOption,
    DeviceOption,
    DtypeOption,
    ForceOption,
    LayoutOption,
    MaskOption,
    OverwriteOption,
    RecentreOption,
    RigOption,
    UnetOption,
    check_model_options,
    checked_masks,
)
from keyorbit.cli.serving import HostOption, PortOption, serving, wait_for_the_end
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, progress
from keyorbit.devices import AUTO
from keyorbit.diffusion.paths import tokens_file
from keyorbit.errors import InputError
from keyorbit.objects.marks import MARKS_MARK, Annotations, read_annotations, write_annotations
from keyorbit.objects.points.read import TOOLS, read_points
from keyorbit.output.choices import ANNOTATIONS
from keyorbit.storage.lock import in_use
from keyorbit.storage.outputs import check_file, check_output

if TYPE_CHECKING:
    from keyorbit.app.annotating import Annotating
    from keyorbit.app.refitting import Refitting

# Where the annotations are, below DATA.
MARKS_FILE = "marks.json"
# Objects that are read before the page is served; the others follow behind it.
_FIRST = 50


def annotate_command(
    data: Annotated[Path, typer.Argument(help="A dataset folder, an object folder, or pictures.")],
    run: Annotated[Path, typer.Option(help="The folder that 'keyorbit discover' or 'mark' wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(help=f"The file of the annotations; default DATA/{MARKS_FILE}.", show_default=False),
    ] = None,
    imported: Annotated[
        Path | None,
        typer.Option("--import", help=f"Take the points that a tool exported as marks, and end: {TOOLS}."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write what is annotated for COCO, CVAT and Label Studio to this folder, and end."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="With --export: also what the model found and nobody has confirmed.")
    ] = False,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    model: Annotated[str | None, typer.Option(help="The model; default the run's own.")] = None,
    background: BackgroundOption = None,
    mask: MaskOption = None,
    recentre: RecentreOption = True,
    host: HostOption = "127.0.0.1",
    port: PortOption = None,
    force: ForceOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
    device: DeviceOption = AUTO,
    dtype: DtypeOption = AUTO,
) -> None:
    """Correct a run's keypoints object by object, in the browser: the least certain object first.

    A corrected point is a mark; the tokens are refitted to the marks in the background. Every step is kept at once, and
    the same command goes on. With --import or --export it does that and ends.
    """
    view_choice = check_model_options(model, unet, rig, layout, dtype)
    if imported is not None and export is not None:
        raise InputError("--import and --export are two steps: give one, then the other")
    if everything and export is None:
        raise InputError("--all is for --export: give it a folder, or leave --all out")
    if json_file is not None and imported is None and export is None:
        raise InputError("--json tells of --import or --export: give one of these, or leave it out")
    masks = checked_masks([data], background, mask)
    tokens_file(run)
    if out is None and not data.is_dir():
        raise InputError(f"{data} is one picture: give the file of its annotations, such as --out {MARKS_FILE}")
    file = out or data / MARKS_FILE
    check_file(file, MARKS_MARK)
    if export is not None:
        check_output(export, ANNOTATIONS, overwrite)
    if imported is not None:
        read_points(imported)  # a file that cannot be read is told before there is a model
    before = read_annotations(file) if file.exists() else Annotations()

    with _alone(file), serving() if imported is None and export is None else nullcontext() as scratch:
        from keyorbit.app.parts import gradio  # isort: skip
        from keyorbit.app.annotating import Annotating
        from keyorbit.app.marked import check_objects, with_names
        from keyorbit.app.refitting import Refitting
        from keyorbit.cli.work.loading import load_tokens, run_backend, use_device
        from keyorbit.cli.work.several import load_all
        from keyorbit.output.palette import keypoint_name

        if scratch is not None:
            gradio()  # whether it is there is told before any work
        tokens, objects = load_tokens(run), load_all(data, background, masks, recentre)
        names = [thing.name for thing in objects]
        before = with_names(before, names)
        check_objects(names, before, file)
        backend = run_backend(tokens, model, use_device(device, False), dtype, unet, view_choice)
        refitting = Refitting(backend, tokens, objects, force)
        own = [keypoint_name(k, tokens.info.names) for k in range(len(tokens))]
        work = Annotating(names, own, file, before)
        if imported is not None:
            tell_json(json_file, "annotate", _import(work, file, refitting, imported))
        elif export is not None:
            count = _export(work, refitting, export, overwrite, everything)
            tell_json(json_file, "annotate", {"out": str(export), "objects": count})
        elif scratch is not None:
            _serve(work, file, refitting, scratch, host, port)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold the file within the block: of two annotators on one file, each would undo what the other did."""
    with ExitStack() as held:
        try:
            held.enter_context(in_use(file))
        except InputError as error:
            raise InputError(
                f"{file} is open in another 'keyorbit annotate': end that one, or give another file with --out"
            ) from error
        yield


def _serve(work: "Annotating", file: Path, refitting: "Refitting", scratch: Path, host: str, port: int | None) -> None:
    from keyorbit.app.annotate_page import build_annotate
    from keyorbit.app.interface import launch
    from keyorbit.app.studio import Studio

    write_annotations(file, work.state.annotations)  # whether it can be written is told before any work
    with progress() as tick:
        refitting.read_first(work, _FIRST, lambda i, n: tick("read", i, n, {}))
    studio = Studio(refitting.backend, refitting.base, scratch)
    refitting.start(work)
    try:
        with launch(studio, host, port, lambda: build_annotate(work, refitting, studio.visits)) as address:
            wait_for_the_end(address)
    finally:
        refitting.close()


def _import(work: "Annotating", kept: Path, refitting: "Refitting", file: Path) -> dict[str, Any]:
    from keyorbit.app.importing import with_imported
    from keyorbit.objects.picture_marks import marks_on

    things, layout = list(refitting.things.values()), refitting.backend.layout
    marks = marks_on(read_points(file), things, layout, str(file), others=True)
    with progress() as tick:
        refitting.read(work, dict.fromkeys(mark.object for mark in marks), lambda i, n: tick("read", i, n, {}))
    done = with_imported(work, marks)
    write_annotations(kept, done.annotations)
    words = f"marks in {kept}: {done.points}, on {done.objects} of {len(work.objects)} objects"
    if done.dropped:
        words += f"; places in pictures that did not fit the others of their point, and were left out: {done.dropped}"
    console.print(words, highlight=False, soft_wrap=True)
    return {"file": str(work.file), "points": done.points, "objects": done.objects, "left_out": done.dropped}


def _export(work: "Annotating", refitting: "Refitting", folder: Path, overwrite: bool, everything: bool) -> int:
    from keyorbit.app.exporting import write_export

    named = {*(mark.object for mark in work.marks), *work.reviewed}
    with progress() as tick:
        wanted = [name for name in work.objects if everything or name in named]
        refitting.read(work, wanted, lambda i, n: tick("read", i, n, {}))
    count = write_export(work, folder, overwrite, everything)
    console.print(f"objects in {folder}, for COCO, CVAT and Label Studio: {count}", highlight=False, soft_wrap=True)
    return count
