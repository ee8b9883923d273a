"""The page of ``keyorbit annotate``, in Gradio: the board with one object, and what the model is at."""

import html
import itertools
from typing import TYPE_CHECKING, Any

from keyorbit.app.board import STEP_SCRIPT, answered, board, step_inputs
from keyorbit.app.visits import Visits
from keyorbit.errors import InputError

if TYPE_CHECKING:
    from keyorbit.app.annotating import Annotating
    from keyorbit.app.refitting import Refitting

# Seconds between two looks at the work in the background.
_EVERY = 2.0
_TITLE = "keyorbit annotate"


def build_annotate(work: "Annotating", model: "Refitting", visits: Visits) -> Any:
    """Build the page as Gradio blocks, for :func:`keyorbit.app.interface.launch`."""
    from keyorbit.app.exporting import archived
    from keyorbit.app.parts import gradio, told_who

    gr = gradio()
    answers = itertools.count()
    with gr.Blocks(title=_TITLE, analytics_enabled=False) as app:
        gr.Markdown(f"# {_TITLE}\n\nThe least certain object first. Everything is kept at once in `{work.file}`.")
        panel = gr.HTML("", elem_id="board", label="Object")
        state = gr.HTML(background_words(model), elem_id="work", label="Model")
        with gr.Row():
            export = gr.Button("Export COCO, CVAT and Label Studio", elem_id="export")
            files = gr.File(label="Exported", interactive=False, elem_id="exported")
        values, step = step_inputs(gr)
        timer = gr.Timer(_EVERY)

        def export_all(request: Any) -> str:
            try:
                with visits.errand(request.session_hash).new_folder() as folder:
                    return str(archived(work, model, folder))
            except InputError as error:
                words = html.escape(str(error), quote=False)
                raise gr.Error(words, duration=None, print_exception=False, title="Not exported") from error

        def take(*given: Any) -> str:
            return answered(work, next(answers), False, given)

        private = {"api_visibility": "private"}
        step.click(take, values, panel, js=STEP_SCRIPT, api_name="step", show_progress="hidden", **private)
        timer.tick(lambda: background_words(model), None, state, api_name="watch", show_progress="hidden", **private)
        export.click(told_who(gr, export_all), None, files, api_name="export", **private)
        app.load(lambda: board(work, next(answers)), None, panel, api_name="board", show_progress="hidden", **private)
    return app


def background_words(model: "Refitting") -> str:
    """What the model is at, as HTML."""
    tokens = f"tokens refitted {model.version} times" if model.version > 1 else "tokens refitted once"
    done = tokens if model.version else "the run's tokens"
    words = f"{model.words}; {done} so far" if model.words and model.version else model.words or done
    if model.trouble:
        words = f"{words}. {model.trouble}"
    return f'<div class="ko"><p class="ko-hint">Model: {html.escape(words, quote=False)}.</p></div>'
