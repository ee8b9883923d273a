"""The page of ``keyorbit annotate``, in Gradio: the board with one object, and what the model is at."""

import base64
import html
import itertools
from typing import Any, get_args, get_type_hints

from keyorbit.app.annotating import Annotating
from keyorbit.app.calls import Step
from keyorbit.app.exporting import archived
from keyorbit.app.interface import gradio, told_who
from keyorbit.app.refitting import Refitting
from keyorbit.app.visits import Visits
from keyorbit.errors import InputError
from keyorbit.output.page.panels import render

# Seconds between two looks at the work in the background.
_EVERY = 2.0
_TITLE = "keyorbit annotate"
_KINDS = get_args(get_type_hints(Step)["kind"])


def build_annotate(work: Annotating, model: Refitting, visits: Visits) -> Any:
    """Build the page as Gradio blocks, for :func:`keyorbit.app.interface.launch`."""
    gr = gradio()
    answers = itertools.count()
    with gr.Blocks(title=_TITLE, analytics_enabled=False) as app:
        gr.Markdown(f"# {_TITLE}\n\nThe least certain object first. Everything is kept at once in `{work.file}`.")
        panel = gr.HTML("", elem_id="board", label="Object")
        state = gr.HTML(background_words(model), elem_id="work", label="Model")
        with gr.Row():
            export = gr.Button("Export COCO, CVAT and Label Studio", elem_id="export")
            files = gr.File(label="Exported", interactive=False, elem_id="exported")
        # The page's script fills these in, see `annotate.js`.
        kind = gr.Dropdown(list(_KINDS), value="skip", visible=False)
        revision, point, view, x, y = (gr.Number(visible=False) for _ in range(5))
        name = gr.Textbox(visible=False)
        step = gr.Button("Send the step", elem_id="step")
        timer = gr.Timer(_EVERY)

        def take(
            kind: str,
            revision: float,
            point: float | None,
            view: float | None,
            x: float | None,
            y: float | None,
            name: str | None,
        ) -> str:
            given = Step(kind, int(revision), _whole(point), _whole(view), x, y, name)  # type: ignore[arg-type]
            wrong = ""
            try:
                take_step(work, given)
            except InputError as error:
                wrong = str(error)
            return board(work, next(answers), wrong)

        def export_all(request: Any) -> str:
            try:
                with visits.errand(request.session_hash).new_folder() as folder:
                    return str(archived(work, model, folder))
            except InputError as error:
                words = html.escape(str(error), quote=False)
                raise gr.Error(words, duration=None, print_exception=False, title="Not exported") from error

        values = [kind, revision, point, view, x, y, name]
        private = {"api_visibility": "private"}
        step.click(take, values, panel, js="() => window.koStep", api_name="step", show_progress="hidden", **private)
        timer.tick(lambda: background_words(model), None, state, api_name="watch", show_progress="hidden", **private)
        export.click(told_who(gr, export_all), None, files, api_name="export", **private)
        app.load(lambda: board(work, next(answers)), None, panel, api_name="board", show_progress="hidden", **private)
    return app


def take_step(work: Annotating, step: Step) -> None:
    """Do what a page asks for.

    Raises:
        InputError: it cannot be done, or the step lacks a value.
    """
    match step.kind:
        case "place":
            if step.x is None or step.y is None:
                raise InputError("place needs x and y, shares of the view's width and height")
            work.place(step.revision, _name(work, step), step.view, (step.x, step.y))
        case "drop":
            work.drop(step.revision, _name(work, step))
        case "absent":
            work.absent(step.revision, _name(work, step))
        case "add":
            work.add(step.revision, step.name or "")
        case "show":
            work.show(step.revision, step.name or "")
        case "accept":
            work.accept(step.revision)
        case "skip":
            work.skip(step.revision)
        case "undo":
            work.undo(step.revision)


def _name(work: Annotating, step: Step) -> str:
    names = work.names
    if step.point is None or step.point >= len(names):
        raise InputError(f"choose a point first: there are points 0 to {len(names) - 1}")
    return names[step.point]


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def board(work: Annotating, answer: int, wrong: str = "") -> str:
    """Render the object that is shown.

    Args:
        work: the annotations.
        answer: a number that no board had before, so that the page shows it anew.
        wrong: what was wrong with the last step. Default empty: nothing.
    """
    name, done = work.state.current, work.reviewed
    seen = work.seen(name)
    facts = [("confirmed", f"{len(done)} of {len(work.objects)}")]
    if seen is not None and name not in done:
        facts.append(("certainty", f"{seen.certainty:.0%}"))
    return render(
        "annotate.html",
        name=name,
        confirmed=name in done,
        revision=work.revision,
        answer=answer,
        facts=facts,
        message=wrong or work.message,
        wrong=bool(wrong),
        points=work.points(name),
        views=[] if seen is None else [_url(view) for view in seen.views],
        picture=None if seen is None or seen.picture is None else _url(seen.picture),
        undoable=work.undoable,
        objects=[{"name": one, "done": one in done, "read": work.seen(one) is not None} for one in work.objects],
    )


def background_words(model: Refitting) -> str:
    """What the model is at, as HTML."""
    tokens = f"tokens refitted {model.version} times" if model.version > 1 else "tokens refitted once"
    done = tokens if model.version else "the run's tokens"
    words = f"{model.words}; {done} so far" if model.words and model.version else model.words or done
    if model.trouble:
        words = f"{words}. {model.trouble}"
    return f'<div class="ko"><p class="ko-hint">Model: {html.escape(words, quote=False)}.</p></div>'


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
