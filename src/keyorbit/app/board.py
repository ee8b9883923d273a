"""The board: one object with its pictures, on which points are marked. Annotators and the app's visitors share it."""

import base64
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from keyorbit.app.calls import Step
from keyorbit.errors import InputError
from keyorbit.output.page.panels import render

if TYPE_CHECKING:
    from keyorbit.app.annotating import Annotating

_KINDS = get_args(get_type_hints(Step)["kind"])


def step_inputs(gr: Any) -> tuple[list[Any], Any]:
    """Make the hidden parts that carry a step to the server: the values in order of :class:`Step`, and the button.

    The page's script fills the values in and presses the button, see ``annotate.js``.
    """
    kind = gr.Dropdown(list(_KINDS), value="skip", visible=False)
    revision, point, view, x, y = (gr.Number(visible=False) for _ in range(5))
    name = gr.Textbox(visible=False)
    return [kind, revision, point, view, x, y, name], gr.Button("Send the step", elem_id="step")


# What the step's button runs in the page first.
STEP_SCRIPT = "() => window.koStep"


def answered(work: "Annotating", answer: int, own: bool, values: tuple[Any, ...]) -> str:
    """Do what the values of :func:`step_inputs` say; return the board that shows it, or what was wrong."""
    kind, revision, point, view, x, y, name = values
    wrong = ""
    try:
        take_step(work, Step(kind, int(revision), _whole(point), _whole(view), x, y, name))
    except InputError as error:
        wrong = str(error)
    return board(work, answer, wrong, own)


def take_step(work: "Annotating", step: Step) -> None:
    """Do what a page asks for.

    Raises:
        InputError: it cannot be done, or the step lacks a value.
    """
    match step.kind:
        case "place":
            work.place(step.revision, _name(work, step), step.view, _xy(step))
        case "create":
            work.create(step.revision, step.view, _xy(step))
        case "drop":
            work.drop(step.revision, _name(work, step))
        case "absent":
            work.absent(step.revision, _name(work, step))
        case "add":
            work.add(step.revision, step.name or "")
        case "rename":
            work.rename(step.revision, _name(work, step), step.name or "")
        case "show":
            work.show(step.revision, step.name or "")
        case "accept":
            work.accept(step.revision)
        case "skip":
            work.skip(step.revision)
        case "clear":
            work.clear(step.revision)
        case "undo":
            work.undo(step.revision)


def _xy(step: Step) -> tuple[float, float]:
    if step.x is None or step.y is None:
        raise InputError(f"{step.kind} needs x and y, shares of the view's width and height")
    return step.x, step.y


def _name(work: "Annotating", step: Step) -> str:
    names = work.names
    if step.point is None or step.point >= len(names):
        there = f"there are points 0 to {len(names) - 1}" if names else "there is none yet"
        raise InputError(f"choose a point first: {there}")
    return names[step.point]


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def board(work: "Annotating", answer: int, wrong: str = "", own: bool = False) -> str:
    """Render the object that is shown.

    Args:
        work: the annotations.
        answer: a number that no board had before, so that the page shows it anew.
        wrong: what was wrong with the last step. Default empty: nothing.
        own: whether the points are a visitor's own, and none is a model's to be confirmed. Default False.
    """
    name, done = work.state.current, work.reviewed
    seen = work.seen(name)
    facts = [] if own else [("confirmed", f"{len(done)} of {len(work.objects)}")]
    if seen is not None and name not in done and not own:
        facts.append(("certainty", f"{seen.certainty:.0%}"))
    return render(
        "annotate.html",
        own=own,
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


def _url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
