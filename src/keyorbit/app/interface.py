"""The page of the app, in Gradio."""

import asyncio
import html
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any, TypeVar

from keyorbit.app.calls import CHAIRS, FOLDER, KEYPOINTS, STEPS, example_pictures
from keyorbit.app.checks import endpoints
from keyorbit.app.door import Door
from keyorbit.app.studio import Job, Studio, loss_charts
from keyorbit.app.uploads import open_mask, open_picture, open_pictures
from keyorbit.app.visits import Errand, Visits
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError, memory_shortage
from keyorbit.objects.background import CUT_OUT_FILE, Background
from keyorbit.objects.dataset import ObjectViews
from keyorbit.output.page.panels import page_asset

T = TypeVar("T")
TITLE = "keyorbit"
WELCOME = """# keyorbit
The same points on an object, in every view and in 3D, from one picture and without labels."""
# Visitors whose work runs at the same time; at the model itself they take turns.
_AT_ONCE = 4
_EVERY = 1.0
# Gradio keeps what a session was shown last; of so many sessions.
_SESSIONS = 200
_TIDY_SECONDS = 5.0
_STAGES = {"prepare": "making views", "cache": "reading the model", "plant": "planting tokens"}


def gradio() -> Any:
    """Import Gradio, which is an optional dependency.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("gradio")
    except ImportError as error:
        raise InputError("the app needs Gradio: pip install 'keyorbit[app]'") from error


def build(studio: Studio) -> Any:
    """Build the app as Gradio blocks; :func:`launch` serves it."""
    gr = gradio()
    with gr.Blocks(title=TITLE, analytics_enabled=False) as app:
        gr.Markdown(f"{WELCOME}\n\n<small>{studio.limits.words}</small>")
        # Of this visitor; empty for those that the app started with. Gradio would call tokens themselves.
        tokens = gr.State(())
        with gr.Tab("Keypoints"):
            _keypoints_tab(gr, studio, tokens)
        with gr.Tab("Discover"):
            _discover_tab(gr, studio, tokens)
        with gr.Tab("Attention"):
            _attention_tab(gr, studio, tokens)
    return app


@contextmanager
def launch(
    studio: Studio, host: str = "127.0.0.1", port: int | None = None, page: Callable[[], Any] | None = None
) -> Iterator[str]:
    """Serve the app within the ``with`` block, which is given its address; at the end, the studio is closed.

    No file of the server can be read through it: only files that the app itself made for a visitor are served. Gradio's
    environment variable ``GRADIO_TEMP_DIR`` must name the studio's scratch folder before Gradio is imported.

    Args:
        studio: the model and the visitors.
        host: the address to which the server binds.
        port: default None: the first free one from 7860.
        page: makes what is served. Default None: :func:`build` of the studio.

    Raises:
        InputError: Gradio is missing, or the port is in use.
    """
    gr, limits, visits = gradio(), studio.limits, studio.visits
    app = build(studio) if page is None else page()
    visits.keep()
    door = import_module("starlette.middleware").Middleware(
        Door, known=endpoints(app.get_config_file()), visits=visits, limits=limits
    )
    style = "".join(page_asset(name) for name in ("style.css", "app.css", "annotate.css"))
    script = "".join(page_asset(name) for name in ("page.js", "viewer.js", "app.js", "annotate.js"))
    head = f"<style>{style}</style><script>{script}</script>"
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    app.queue(default_concurrency_limit=_AT_ONCE, max_size=limits.waiting, api_open=False)
    try:
        app.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            inbrowser=False,
            show_error=False,
            max_file_size=limits.bytes,
            allowed_paths=[],
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            state_session_capacity=_SESSIONS,
            app_kwargs={"middleware": [door], "lifespan": lambda _: _tidied(visits)},
            theme=gr.themes.Base(primary_hue="blue", neutral_hue="stone", **fonts),
            head=head,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(f"the app cannot listen on {host}, port {port or 7860}: {error}") from error
    try:
        yield app.local_url
    finally:
        visits.end()
        app.close(verbose=False)
        studio.close()


@asynccontextmanager
async def _tidied(visits: Visits) -> AsyncIterator[None]:
    """While the server runs, remove the files of visitors who left, and old ones."""

    async def tidy() -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            await asyncio.to_thread(visits.tidy)

    task = asyncio.create_task(tidy())
    try:
        yield
    finally:
        task.cancel()


def told_who(gr: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which is told who asks: Gradio gives the request to what is annotated so.

    The type is known only once Gradio is imported.
    """
    function.__annotations__["request"] = gr.Request
    return function


def _own(studio: Studio, chosen: tuple[Tokens, ...]) -> Tokens:
    return chosen[0] if chosen else studio.tokens


def _picture(gr: Any, label: str) -> Any:
    picture = gr.Image(label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=260)
    # Gradio would decode the file before we have looked at its size.
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


def _examples(gr: Any, picture: Any, name: str) -> None:
    gr.Examples([[str(path)] for path in example_pictures()], picture, label="Examples", api_name=name)


def _error(gr: Any, error: Exception) -> Exception:
    """What a visitor is told of an error that is nobody's fault here; others stay what they are."""
    if (where := memory_shortage(error)) is not None:
        words = f"There is not enough of {where} for this: try again later, or with less."
    elif isinstance(error, InputError):
        words = html.escape(str(error), quote=False)  # Gradio shows it as HTML
    else:
        return error
    told: Exception = gr.Error(words, duration=None, print_exception=False, title="Please try again")
    return told


async def _at_work(gr: Any, errand: Errand, work: Callable[[], T]) -> T:
    """Do the work in a thread; when the request is cancelled, its place is free at once.

    What waits for its turn then leaves, and what the model is at work on is not written.
    """
    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        errand.cancel()
        raise
    except Exception as error:
        raise _error(gr, error) from error


def _keypoints_tab(gr: Any, studio: Studio, tokens: Any) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            picture = _picture(gr, "A picture of one object")
            start = gr.Button("Find keypoints", variant="primary", elem_id="find")
            background, cut, mask = _cut_out_step(gr)
            _examples(gr, picture, "example")
            files = gr.Files(label="Downloads", interactive=False, elem_id="downloads")
        with gr.Column(scale=3, min_width=320):
            panel = gr.HTML("<p>Drop a picture, or pick an example.</p>", elem_id="panel", label="Keypoints")

    async def find(
        picture: str | None,
        background: Background | None = "auto",
        mask: str | None = None,
        chosen: tuple[Tokens, ...] = (),
        request: Any = None,
        progress: Any = gr.Progress(),
    ) -> tuple[str, list[str], str | None]:
        errand = studio.visits.errand(request.session_hash)

        def work() -> tuple[str, list[str], str | None]:
            image = open_picture(picture, studio.limits)
            own = open_mask(mask, image, studio.limits)
            thing = ObjectViews("picture", image, background=background or "auto", mask=own)
            say = lambda share, words: progress(share, desc=words)  # noqa: E731
            shown, files, _ = studio.detect(thing, _own(studio, chosen), errand, say)
            return shown, files, next((file for file in files if file.endswith(CUT_OUT_FILE)), None)

        return await _at_work(gr, errand, work)

    async def corrected(
        picture: str | None,
        background: Background | None,
        mask: str | None,
        chosen: tuple[Tokens, ...],
        request: Any,
        progress: Any = gr.Progress(),
    ) -> Any:
        return gr.skip() if picture is None else await find(picture, background, mask, chosen, request, progress)

    async def dropped(
        picture: str | None,
        background: Background | None,
        mask: str | None,
        chosen: tuple[Tokens, ...],
        request: Any,
        progress: Any = gr.Progress(),
    ) -> Any:
        if picture is None:
            return gr.skip()
        # The mask is of the picture before.
        return *await find(picture, background, None, chosen, request, progress), None

    inputs, outputs = [picture, background, mask, tokens], [panel, files, cut]
    options = {"concurrency_id": "model", "concurrency_limit": _AT_ONCE, "show_progress_on": panel}
    start.click(told_who(gr, find), inputs, outputs, api_name="find", **options)
    # An example or a dropped picture needs no second step.
    listener = told_who(gr, dropped)
    picture.change(listener, inputs, [*outputs, mask], api_name="dropped", api_visibility="private", **options)
    # Not on their changes, which come with another picture, too.
    again = [background.input, mask.upload, mask.clear]
    listener = told_who(gr, corrected)
    gr.on(again, listener, inputs, outputs, api_name="corrected", api_visibility="private", **options)


def _cut_out_step(gr: Any) -> tuple[Any, Any, Any]:
    """What was cut out of the picture, and the ways to correct it: the choice, the cut-out and the mask."""
    choices = [("Cut it out of a photograph", "auto"), ("Always cut it out", "remove"), ("Keep the background", "keep")]
    background = gr.Radio(choices, value="auto", label="The object", elem_id="background")
    cut = gr.Image(label="As cut out", type="filepath", interactive=False, height=180, elem_id="cutout", buttons=[])
    with gr.Accordion("Looks wrong?", open=False, elem_id="wrong"):
        gr.Markdown(
            "Keep the background, or give a mask of the picture's size: white on the object, or `cutout.png` of the "
            "downloads with more or less of it transparent."
        )
        mask = _picture(gr, "A corrected mask")
    return background, cut, mask


def _discover_tab(gr: Any, studio: Studio, tokens: Any) -> None:
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
            yield done | {state: words, panel: shown, tokens: (work.tokens,), saved: file}
        except Exception as error:
            raise _error(gr, error) from error

    outputs = [job, stop, start, state, curves, panel, saved, tokens]
    options = {"concurrency_limit": _AT_ONCE, "api_name": "discover"}
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


def _attention_tab(gr: Any, studio: Studio, tokens: Any) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            picture = _picture(gr, "A picture of one object")
            token = gr.Number(0, label="Keypoint", precision=0, minimum=0, maximum=KEYPOINTS[1] - 1)
            start = gr.Button("Show its attention", variant="primary", elem_id="attend")
            _examples(gr, picture, "attention_example")
        with gr.Column(scale=3, min_width=320):
            panel = gr.HTML("<p>One token's attention, layer by layer.</p>", elem_id="layers", label="Attention")

    async def show(picture: str | None, token: int | float | None, chosen: tuple[Tokens, ...], request: Any) -> str:
        errand = studio.visits.errand(request.session_hash)

        def work() -> str:
            image = open_picture(picture, studio.limits)
            return studio.attention(image, _own(studio, chosen), errand, int(token or 0))

        return await _at_work(gr, errand, work)

    options = {"concurrency_id": "model", "concurrency_limit": _AT_ONCE, "api_name": "attention"}
    start.click(told_who(gr, show), [picture, token, tokens], panel, **options)
