"""The page of the app, in Gradio."""

from collections.abc import Callable, Iterator
from html import escape
from importlib import import_module
from typing import Any

from keyorbit.app.studio import EXAMPLES, Job, Studio, examples, loss_charts
from keyorbit.app.uploads import Limits, open_picture, open_pictures
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.output.page.panels import page_asset

CHAIRS, FOLDER = "The eight chairs that come with keyorbit", "A folder of my own pictures"
TITLE = "keyorbit"
WELCOME = """# keyorbit
The same points on an object, in every view and in 3D, from one picture and without labels."""
# Visitors whose work runs at the same time; at the model itself they take turns.
_AT_ONCE = 4
_EVERY = 1.0
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


def build(studio: Studio, limits: Limits | None = None) -> Any:
    """Build the app as Gradio blocks; :func:`launch` serves it."""
    gr, limits = gradio(), limits or Limits()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.Markdown(WELCOME)
        # Of this visitor; empty for those that the app started with. Gradio would call tokens themselves.
        tokens = gr.State(())
        with gr.Tab("Keypoints"):
            _keypoints_tab(gr, studio, limits, tokens)
        with gr.Tab("Discover"):
            _discover_tab(gr, studio, limits, tokens)
        with gr.Tab("Attention"):
            _attention_tab(gr, studio, limits, tokens)
    return app


def launch(studio: Studio, host: str = "127.0.0.1", port: int | None = None, block: bool = True) -> Any:
    """Serve the app and return Gradio's blocks. ``host`` is the address to which the server binds.

    No file of the server can be read through it: only files that the app itself made for a visitor are served.

    Raises:
        InputError: Gradio is missing, or the port is in use.
    """
    gr, limits = gradio(), Limits()
    app = build(studio, limits)
    style = "".join(page_asset(name) for name in ("style.css", "app.css"))
    script = "".join(page_asset(name) for name in ("page.js", "viewer.js", "app.js"))
    head = f"<style>{style}</style><script>{script}</script>"
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    try:
        app.queue(default_concurrency_limit=_AT_ONCE, max_size=64).launch(
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
            theme=gr.themes.Base(primary_hue="blue", neutral_hue="stone", **fonts),
            head=head,
            prevent_thread_lock=not block,
        )
    except OSError as error:
        raise InputError(f"the app cannot listen on {host}, port {port or 7860}: {error}") from error
    return app


def _own(studio: Studio, chosen: tuple[Tokens, ...]) -> Tokens:
    return chosen[0] if chosen else studio.tokens


def _picture(gr: Any, label: str) -> Any:
    picture = gr.Image(label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=260)
    # Gradio would decode the file before we have looked at its size.
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


def _example_pictures() -> list[list[str]]:
    return [[str(folder / "cond.png")] for folder in sorted(EXAMPLES.iterdir()) if folder.is_dir()]


def _kindly(gr: Any, work: Callable[..., Any]) -> Any:
    """Show errors that a visitor can correct as a sentence, which Gradio would read as HTML."""
    try:
        return work()
    except InputError as error:
        raise gr.Error(
            escape(str(error), quote=False), duration=None, print_exception=False, title="Please try again"
        ) from error


def _keypoints_tab(gr: Any, studio: Studio, limits: Limits, tokens: Any) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            picture = _picture(gr, "A picture of one object")
            start = gr.Button("Find keypoints", variant="primary", elem_id="find")
            gr.Examples(_example_pictures(), picture, label="Examples", cache_examples=False)
            files = gr.Files(label="Downloads", interactive=False, elem_id="downloads")
        with gr.Column(scale=3, min_width=320):
            panel = gr.HTML("<p>Drop a picture, or pick an example.</p>", elem_id="panel", label="Keypoints")

    def find(path: str | None, chosen: tuple[Tokens, ...], progress: Any = gr.Progress()) -> tuple[str, list[str]]:
        image = _kindly(gr, lambda: open_picture(path, limits))
        html, written, _ = _kindly(
            gr, lambda: studio.detect(image, _own(studio, chosen), lambda s, words: progress(s, desc=words))
        )
        return html, written

    def dropped(path: str | None, chosen: tuple[Tokens, ...], progress: Any = gr.Progress()) -> Any:
        return gr.skip() if path is None else find(path, chosen, progress)

    options = {"concurrency_limit": _AT_ONCE, "show_progress_on": panel}
    start.click(find, [picture, tokens], [panel, files], api_name="find", **options)
    # An example or a dropped picture needs no second step.
    picture.change(dropped, [picture, tokens], [panel, files], api_visibility="private", **options)


def _discover_tab(gr: Any, studio: Studio, limits: Limits, tokens: Any) -> None:
    job = gr.State(None)
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            source = gr.Radio([CHAIRS, FOLDER], value=CHAIRS, label="Objects")
            folder = gr.File(label="Folder", file_count="directory", visible=False, elem_id="folder")
            count = gr.Slider(4, limits.tokens, 12, step=1, label="Keypoints")
            steps = gr.Slider(10, limits.steps, 200, step=10, label="Steps")
            start = gr.Button("Discover", variant="primary", elem_id="discover")
            stop = gr.Button("Stop and keep what is there", interactive=False, elem_id="stop")
            state = gr.Markdown("", elem_id="state")
            saved = gr.File(label="Tokens", interactive=False, elem_id="tokens")
        with gr.Column(scale=3, min_width=320):
            curves = gr.HTML("", elem_id="curves", label="Losses")
            panel = gr.HTML("", elem_id="preview", label="Preview")
    source.change(lambda kind: gr.update(visible=kind == FOLDER), source, folder, api_visibility="private")

    def run(kind: str, paths: list[str] | None, number: int | float, most: int | float) -> Iterator[dict[Any, Any]]:
        objects = _kindly(gr, lambda: examples() if kind == CHAIRS else open_pictures(paths, limits))
        work = studio.start(objects, min(int(number), limits.tokens), min(int(most), limits.steps))
        try:
            yield {job: work, stop: gr.update(interactive=True), start: gr.update(interactive=False), saved: None}
            yield from _watch(gr, studio, work, objects[0], {"state": state, "curves": curves, "panel": panel})
        finally:
            work.stop()
        done = {start: gr.update(interactive=True), stop: gr.update(interactive=False), job: None}
        if work.error or work.tokens is None:
            yield done | {state: work.error or "Nothing was found."}
            return
        words = f"{'Stopped' if work.stopped and len(work.losses) < most else 'Done'} after {len(work.losses)} steps. "
        html = studio.preview(objects[0], work.tokens)
        words += f"The other tabs now use these {len(work.tokens)} keypoints."
        yield done | {state: words, panel: html, tokens: (work.tokens,), saved: studio.save(work.tokens)}

    outputs = [job, stop, start, state, curves, panel, saved, tokens]
    start.click(run, [source, folder, count, steps], outputs, concurrency_limit=_AT_ONCE, api_name="discover")
    stop.click(_stop, job, None, queue=False, api_visibility="private")


def _stop(work: Job | None) -> None:
    if work is not None:
        work.stop()


def _watch(gr: Any, studio: Studio, work: Job, thing: Any, parts: dict[str, Any]) -> Iterator[dict[Any, Any]]:
    """Yield the state of a job about once a second, until it ends."""
    shown: Tokens | None = None
    while not work.finished.wait(_EVERY):
        stage, done, total = work.stage
        words = _STAGES.get(stage, stage)
        update = {parts["state"]: f"{words} {done} of {total}{', stopping' if work.stopped else ''}"}
        if len(work.losses) > 1:
            update[parts["curves"]] = loss_charts(work.losses)
        if work.tokens is not None and work.tokens is not shown:
            shown = work.tokens
            update[parts["panel"]] = studio.preview(thing, shown)
        yield update
    if len(work.losses) > 1:
        yield {parts["curves"]: loss_charts(work.losses)}


def _attention_tab(gr: Any, studio: Studio, limits: Limits, tokens: Any) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            picture = _picture(gr, "A picture of one object")
            token = gr.Number(0, label="Keypoint", precision=0, minimum=0, maximum=limits.tokens - 1)
            start = gr.Button("Show its attention", variant="primary", elem_id="attend")
            gr.Examples(_example_pictures(), picture, label="Examples", cache_examples=False)
        with gr.Column(scale=3, min_width=320):
            panel = gr.HTML("<p>One token's attention, layer by layer.</p>", elem_id="layers", label="Attention")

    def show(path: str | None, number: int | float | None, chosen: tuple[Tokens, ...]) -> str:
        image = _kindly(gr, lambda: open_picture(path, limits))
        return str(_kindly(gr, lambda: studio.attention(image, _own(studio, chosen), int(number or 0))))

    start.click(show, [picture, token, tokens], panel, concurrency_limit=_AT_ONCE, api_name="attention")
