"""The tab in which a visitor marks points of his own on the views of a picture; they become the app's keypoints."""

import itertools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from keyorbit.app.board import STEP_SCRIPT, answered, board, step_inputs
from keyorbit.app.own_points import OwnPoints
from keyorbit.app.parts import AT_ONCE, followed, in_use, shown_error, told_who
from keyorbit.app.seen import Seen
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews

if TYPE_CHECKING:
    from keyorbit.app.studio import Studio

POINTS_TAB = "points"
_EMPTY = """<div class="ko"><section class="ko-panel ko-welcome">
<h2>Your own points</h2>
<ol><li>Find keypoints of a picture in the first tab: that makes its views.</li>
<li>There, press <b>Mark my own points on these views</b>.</li>
<li>Click where a point is. A few clicks make a keypoint that is found on every other picture.</li></ol>
</section></div>"""
Last = tuple[tuple[ObjectViews, Seen], ...]


def points_tab(gr: Any, studio: "Studio", tokens: Any, last: Any, used: tuple[Any, Any], begin: Any, tabs: Any) -> None:
    """Make the tab.

    Args:
        gr: Gradio.
        studio: the model and the visitors.
        tokens: the state with the visitor's tokens.
        last: the state with the object whose keypoints were found last.
        used: what says which keypoints are looked for.
        begin: the button that begins here with the last object.
        tabs: all tabs, to turn to this one.
    """
    points, answers = gr.State(()), itertools.count()
    panel = gr.HTML(_EMPTY, elem_id="board", label="Your points")
    with gr.Row(visible=False) as row:
        fit = gr.Button("Make them keypoints", variant="primary", elem_id="fit")
        export = gr.Button("Download the points", elem_id="export")
    result = gr.HTML("", elem_id="fitted", label="Your keypoints")
    files = gr.Files(label="Your points", interactive=False, visible=False, elem_id="exported")
    values, step = step_inputs(gr)

    def start(last: Last, points: tuple[OwnPoints, ...]) -> dict[Any, Any]:
        own = points[0] if points else OwnPoints()
        if last:
            own.take(*last[0])
        return {panels["points"]: (own,), panel: board(own.work, next(answers), own=True)} | {
            row: gr.update(visible=True),
            tabs: gr.update(selected=POINTS_TAB),
        }

    def take(*given: Any) -> Any:
        *given_step, points = given
        if not points:
            return gr.skip()
        return answered(points[0].work, next(answers), True, tuple(given_step))

    def save(points: tuple[OwnPoints, ...], request: Any) -> Any:
        try:
            made = studio.save_points(_own(points), studio.visits.errand(request.session_hash))
            return gr.update(value=[made], visible=True)
        except Exception as error:
            raise shown_error(gr, error) from error

    async def learn(points: tuple[OwnPoints, ...], request: Any) -> AsyncIterator[dict[Any, Any]]:
        errand, progress = studio.visits.errand(request.session_hash), studio.progress(own=True)

        def work() -> dict[Any, Any]:
            own = _own(points)
            made = studio.fit(own, errand, progress)
            shown, found, _ = studio.detect(own.things[own.work.state.current], made, errand, progress)
            saved = [studio.save_points(own, errand), studio.save(made, errand), *found]
            return {
                panels["tokens"]: (made,),
                **in_use(gr, used, (made,)),
                files: gr.update(value=saved, visible=True),
                result: f"{_DONE.format(count=len(made))}{shown}",
            }

        async for shown, found in followed(gr, errand, progress, work):
            yield {result: shown} if found is None else found

    panels = {"points": points, "tokens": tokens}
    private = {"api_visibility": "private", "show_progress": "hidden"}
    begin.click(start, [last, points], [points, panel, row, tabs], api_name="begin", **private)
    step.click(take, [*values, points], panel, js=STEP_SCRIPT, api_name="step", **private)
    export.click(told_who(gr, save), points, files, api_name="export", **private)
    options = private | {"concurrency_id": "model", "concurrency_limit": AT_ONCE}
    fit.click(told_who(gr, learn), points, [tokens, *used, files, result], api_name="fit", **options)


_DONE = (
    '<div class="ko"><p class="ko-trust ko-known" role="status">The app now looks for your keypoints ({count}) in '
    "every picture: try another one in the tab Keypoints. Here they are as found on this one.</p></div>"
)


def _own(points: tuple[OwnPoints, ...]) -> OwnPoints:
    if not points:
        raise InputError("There is no point yet: click where it is, in any view.")
    return points[0]
