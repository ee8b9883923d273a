"""What the tabs of the app have in common: inputs, errors as a visitor sees them, and work that the page follows."""

import asyncio
import html
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from keyorbit.app.calls import example_pictures
from keyorbit.app.visits import Errand
from keyorbit.errors import InputError, memory_shortage

if TYPE_CHECKING:
    from keyorbit.app.progress import Progress
    from keyorbit.app.studio import Studio
    from keyorbit.diffusion.tokens import Tokens

T = TypeVar("T")
# Calls of one kind that run at the same time; at the model itself they take turns.
AT_ONCE = 4
# Seconds between two looks at how far a visitor's work is.
_GLANCE = 0.4
_NAMED = 4


def gradio() -> Any:
    """Import Gradio, which is an optional dependency.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_module("gradio")
    except ImportError as error:
        raise InputError("the app needs Gradio: pip install 'keyorbit[app]'") from error


def told_who(gr: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which is told who asks: Gradio gives the request to what is annotated so.

    The type is known only once Gradio is imported.
    """
    function.__annotations__["request"] = gr.Request
    return function


def tokens_of(studio: "Studio", chosen: tuple["Tokens", ...]) -> "Tokens":
    """Return the visitor's tokens, or those that the app started with."""
    return chosen[0] if chosen else studio.tokens


def picture_input(gr: Any, label: str) -> Any:
    """Make a place to drop a picture; its value is the path of the file."""
    picture = gr.Image(label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=260)
    # Gradio would decode the file before we have looked at its size.
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


def examples_of(gr: Any, picture: Any, name: str) -> None:
    """Make a row of pictures to try; ``name`` is that of the endpoint."""
    gr.Examples([[str(path)] for path in example_pictures()], picture, label="Examples", api_name=name)


def shown_error(gr: Any, error: Exception) -> Exception:
    """What a visitor is told of an error that is nobody's fault here; others stay what they are."""
    if (words := _words_of(error)) is None:
        return error
    shown = html.escape(words, quote=False)  # Gradio shows it as HTML
    told: Exception = gr.Error(shown, duration=None, print_exception=False, title="Please try again")
    return told


def _words_of(error: Exception) -> str | None:
    if (where := memory_shortage(error)) is not None:
        return f"There is not enough of {where} for this: try again later, or with less."
    return str(error) if isinstance(error, InputError) else None


async def at_work(gr: Any, errand: Errand, work: Callable[[], T]) -> T:
    """Do the work in a thread; when the request is cancelled, its place is free at once.

    What waits for its turn then leaves, and what the model is at work on is not written.
    """
    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        errand.cancel()
        raise
    except Exception as error:
        raise shown_error(gr, error) from error


async def followed(
    gr: Any, errand: Errand, progress: "Progress", work: Callable[[], T]
) -> AsyncIterator[tuple[str, T | None]]:
    """Do the work as :func:`at_work`; yield how far it is, as HTML, whenever that changes, and last its result."""
    task = asyncio.create_task(asyncio.to_thread(work))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # of a request that has left, too
    shown = ""
    try:
        while not task.done():
            if (now := progress.html()) != shown:
                shown = now
                yield now, None
            await asyncio.wait({task}, timeout=_GLANCE)
        yield "", task.result()
    except (asyncio.CancelledError, GeneratorExit):
        errand.cancel()
        raise
    except Exception as error:
        # The page must not show steps for ever that nobody takes any more.
        yield progress.html(_words_of(error) or "It did not work; the terminal of the app says more."), None
        raise shown_error(gr, error) from error


def in_use(gr: Any, used: tuple[Any, Any], chosen: tuple["Tokens", ...]) -> dict[Any, Any]:
    """Return what updates the line that says which keypoints are looked for, and the button for the app's own ones."""
    line, back = used
    return {line: _in_use(chosen), back: gr.update(visible=bool(chosen))}


def _in_use(chosen: tuple["Tokens", ...]) -> str:
    if not chosen:
        return ""
    count, names = len(chosen[0]), [name for name in chosen[0].info.names if name]
    listed = html.escape(", ".join(names[:_NAMED]) + (" and more" if names[_NAMED:] else ""), quote=False)
    return f"Looking for **your {count} keypoint{'' if count == 1 else 's'}**{listed and ': '}{listed}."
