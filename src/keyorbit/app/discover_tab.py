"""The tab in which tokens are discovered, with losses and a preview while they are."""

import html
import time
from collections.abc import Iterator
from typing import Any

from keyorbit.app.calls import CHAIRS, FOLDER, KEYPOINTS, STEPS
from keyorbit.app.parts import AT_ONCE, in_use, shown_error, told_who
from keyorbit.app.studio import Job, Studio, loss_charts
from keyorbit.app.uploads import open_pictures
from keyorbit.app.visits import Errand
from keyorbit.diffusion.tokens import Tokens
from keyorbit.objects.dataset import ObjectViews

_EVERY = 1.0
_STAGES = {"prepare": "making views", "cache": "reading the model", "plant": "planting tokens"}


def discover_tab(gr: Any, studio: Studio, tokens: Any, used: tuple[Any, Any]) -> None:
    """Make the tab; ``used`` says which keypoints the app looks for."""
    job = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            source = gr.Radio([CHAIRS, FOLDER], value=CHAIRS, label="Objects")
            folder = gr.File(label="Folder", file_count="directory", visible=False, elem_id="folder")
            count = gr.Slider(*KEYPOINTS, 12, step=1, label="Keypoints")
            steps = gr.Slider(*STEPS, 200, step=10, label="Steps")
            start = gr.Button("Discover", variant="primary", elem_id="discover")
            stop = gr.Button("Stop and keep what is there", interactive=False, elem_id="stop")
            state = gr.Markdown("", elem_id="state")
            saved = gr.File(label="Tokens", interactive=False, elem_id="tokens")
        with gr.Column(scale=3, min_width=320):
            curves = gr.HTML("", elem_id="curves", label="Losses")
            panel = gr.HTML("", elem_id="preview", label="Preview")
    source.change(
        lambda kind: gr.update(visible=kind == FOLDER), source, folder, api_name="source", api_visibility="private"
    )

    def run(
        source: str, folder: list[str] | None, count: int | float, steps: int | float, request: Any
    ) -> Iterator[dict[Any, Any]]:
        errand = studio.visits.errand(request.session_hash)
        try:
            objects = studio.chairs() if source == CHAIRS else open_pictures(folder, studio.limits)
            work = studio.start(objects, int(count), int(steps))
            try:
                yield {job: work, stop: gr.update(interactive=True), start: gr.update(interactive=False), saved: None}
                parts = {"state": state, "curves": curves, "panel": panel}
                yield from _watch(studio, work, objects[0], errand, parts)
            finally:
                work.stop()
            done = {start: gr.update(interactive=True), stop: gr.update(interactive=False), job: None}
            if work.error or work.tokens is None:
                yield done | {state: html.escape(work.error or "Nothing was found.", quote=False)}
                return
            words = f"{'Stopped' if len(work.losses) < steps else 'Done'} after {len(work.losses)} steps. "
            shown = studio.preview(objects[0], work.tokens, errand)
            words += f"The other tabs now use these {len(work.tokens)} keypoints."
            file = studio.save(work.tokens, errand)
            chosen = (work.tokens,)
            yield done | {state: words, panel: shown, tokens: chosen, saved: file} | in_use(gr, used, chosen)
        except Exception as error:
            raise shown_error(gr, error) from error

    outputs = [job, stop, start, state, curves, panel, saved, tokens, *used]
    options = {"concurrency_limit": AT_ONCE, "api_name": "discover"}
    start.click(told_who(gr, run), [source, folder, count, steps], outputs, **options)
    stop.click(_stop, job, None, queue=False, api_name="stop", api_visibility="private")


def _stop(work: Job | None) -> None:
    if work is not None:
        work.stop()


def _watch(
    studio: Studio, work: Job, thing: ObjectViews, errand: Errand, parts: dict[str, Any]
) -> Iterator[dict[Any, Any]]:
    """Yield the state of a job about once a second, until it ends; after the time that one may take, end it."""
    shown: Tokens | None = None
    end = time.monotonic() + studio.limits.seconds
    while not work.finished.wait(_EVERY):
        if errand.over() or time.monotonic() > end:
            work.stop()
        stage, done, total = work.stage
        words = _STAGES.get(stage, stage)
        update = {parts["state"]: f"{words} {done} of {total}{', stopping' if work.stopped else ''}"}
        if len(work.losses) > 1:
            update[parts["curves"]] = loss_charts(work.losses)
        if work.tokens is not None and work.tokens is not shown:
            shown = work.tokens
            update[parts["panel"]] = studio.preview(thing, shown, errand)
        yield update
    if len(work.losses) > 1:
        yield {parts["curves"]: loss_charts(work.losses)}
