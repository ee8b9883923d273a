"""The page of the app, in Gradio."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from keyorbit.app.checks import endpoints
from keyorbit.app.door import Door
from keyorbit.app.parts import AT_ONCE, gradio
from keyorbit.app.visits import Visits
from keyorbit.errors import InputError
from keyorbit.output.page.panels import page_asset

if TYPE_CHECKING:
    from keyorbit.app.studio import Studio

TITLE = "keyorbit"
WELCOME = """# keyorbit
The same points on an object, in every view and in 3D, from one picture and without labels."""
# Gradio keeps what a session was shown last; of so many sessions.
_SESSIONS = 200
_TIDY_SECONDS = 5.0


def build(studio: "Studio") -> Any:
    """Build the app as Gradio blocks; :func:`launch` serves it."""
    # Not for the annotators' page, which is launched as well.
    from keyorbit.app.attention_tab import attention_tab
    from keyorbit.app.discover_tab import discover_tab
    from keyorbit.app.keypoints_tab import keypoints_tab
    from keyorbit.app.points_tab import POINTS_TAB, points_tab

    gr = gradio()
    with gr.Blocks(title=TITLE, analytics_enabled=False) as app:
        gr.Markdown(WELCOME)
        # Of this visitor; empty for those that the app started with. Gradio would call tokens themselves.
        tokens, last = gr.State(()), gr.State(())
        with gr.Tabs() as tabs:
            with gr.Tab("Keypoints"):
                used, begin = keypoints_tab(gr, studio, tokens, last)
            with gr.Tab("Your points", id=POINTS_TAB):
                points_tab(gr, studio, tokens, last, used, begin, tabs)
            with gr.Tab("Discover"):
                discover_tab(gr, studio, tokens, used)
            with gr.Tab("Attention"):
                attention_tab(gr, studio, tokens)
        gr.Markdown(f"<small>{studio.limits.words}</small>", elem_id="limits")
    return app


@contextmanager
def launch(
    studio: "Studio", host: str = "127.0.0.1", port: int | None = None, page: Callable[[], Any] | None = None
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
    app.queue(default_concurrency_limit=AT_ONCE, max_size=limits.waiting, api_open=False)
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
