"""The tab in which a picture becomes keypoints, step by step."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from keyorbit.app.parts import AT_ONCE, examples_of, followed, in_use, picture_input, tokens_of, told_who
from keyorbit.app.seen import Seen
from keyorbit.app.uploads import called, open_mask, open_picture
from keyorbit.diffusion.tokens import Tokens
from keyorbit.objects.background import CUT_OUT_FILE, Background
from keyorbit.objects.dataset import ObjectViews

if TYPE_CHECKING:
    from keyorbit.app.studio import Studio

_WELCOME = """<div class="ko"><section class="ko-panel ko-welcome">
<h2>Drop a picture of one object, or pick an example</h2>
<ol><li>The object is cut out of its background.</li><li>The model makes views of it from all sides.</li>
<li>Keypoints are found in every view and in 3D: the same number is the same part on every object.</li></ol>
</section></div>"""


def keypoints_tab(gr: Any, studio: "Studio", tokens: Any, last: Any) -> tuple[tuple[Any, Any], Any]:
    """Make the tab; return what says which keypoints are looked for, and the button to mark one's own.

    Args:
        gr: Gradio.
        studio: the model and the visitors.
        tokens: the state with the visitor's tokens.
        last: the state with the object whose keypoints were found last, and what is seen of it.
    """
    # What belongs to a result is hidden by the style until there is one: programs get the values alone.
    with gr.Row(elem_id="work"):
        with gr.Column(elem_id="given"):
            picture = picture_input(gr, "A picture of one object")
            examples_of(gr, picture, "example")
            start = gr.Button("Find keypoints", variant="primary", elem_id="find")
            used = (
                gr.Markdown("", elem_id="used"),
                gr.Button("The app's own again", visible=False, size="sm", elem_id="back"),
            )
        with gr.Column(elem_id="found"):
            own = gr.Button("Mark my own points on these views", size="sm", elem_id="own")
            panel = gr.HTML(_WELCOME, elem_id="panel", label="Keypoints")
        with gr.Column(elem_id="more"):
            files = gr.Files(label="Downloads", interactive=False, elem_id="downloads")
            gr.Markdown("`keypoints.html` is the whole result as one page, to keep or to send.", elem_id="share")
            background, cut, mask = _cut_out_step(gr)

    async def find(
        picture: str | None,
        background: Background | None = "auto",
        mask: str | None = None,
        chosen: tuple[Tokens, ...] = (),
        request: Any = None,
    ) -> AsyncIterator[dict[Any, Any]]:
        errand, progress = studio.visits.errand(request.session_hash), studio.progress()

        def work() -> dict[Any, Any]:
            image = open_picture(picture, studio.limits)
            own_mask = open_mask(mask, image, studio.limits)
            thing = ObjectViews(called(picture), image, background=background or "auto", mask=own_mask)
            shown, made, found = studio.detect(thing, tokens_of(studio, chosen), errand, progress)
            cut_out = next((file for file in made if file.endswith(CUT_OUT_FILE)), None)
            return {
                panel: shown,
                files: made,
                cut: cut_out,
                last: ((thing, Seen.of(found, 0, generated=True)),),
            }

        async for shown, found in followed(gr, errand, progress, work):
            yield {panel: shown} if found is None else found

    async def corrected(
        picture: str | None,
        background: Background | None,
        mask: str | None,
        chosen: tuple[Tokens, ...],
        request: Any,
    ) -> AsyncIterator[dict[Any, Any]]:
        if picture is not None:
            async for shown in find(picture, background, mask, chosen, request):
                yield shown

    async def dropped(
        picture: str | None,
        background: Background | None,
        given: str | None,
        chosen: tuple[Tokens, ...],
        request: Any,
    ) -> AsyncIterator[dict[Any, Any]]:
        if picture is not None:
            # The mask is of the picture before.
            async for shown in find(picture, background, None, chosen, request):
                yield shown | {mask: None}

    inputs, outputs = [picture, background, mask, tokens], [panel, files, cut, last]
    options = {"concurrency_id": "model", "concurrency_limit": AT_ONCE, "show_progress": "hidden"}
    start.click(told_who(gr, find), inputs, outputs, api_name="find", **options)
    # An example or a dropped picture needs no second step.
    listener = told_who(gr, dropped)
    picture.change(listener, inputs, [*outputs, mask], api_name="dropped", api_visibility="private", **options)
    # Not on their changes, which come with another picture, too.
    again = [background.input, mask.upload, mask.clear]
    listener = told_who(gr, corrected)
    gr.on(again, listener, inputs, outputs, api_name="corrected", api_visibility="private", **options)
    private = {"api_name": "back", "api_visibility": "private", "show_progress": "hidden"}
    used[1].click(lambda: {tokens: (), **in_use(gr, used, ())}, None, [tokens, *used], **private)
    return used, own


def _cut_out_step(gr: Any) -> tuple[Any, Any, Any]:
    """What was cut out of the picture, and the ways to correct it: the choice, the cut-out and the mask."""
    choices = [("Cut it out of a photograph", "auto"), ("Always cut it out", "remove"), ("Keep the background", "keep")]
    with gr.Accordion("Is the object cut out well?", open=False, elem_id="wrong"):
        cut = gr.Image(label="As cut out", type="filepath", interactive=False, height=180, elem_id="cutout", buttons=[])
        background = gr.Radio(choices, value="auto", label="The object", elem_id="background")
        gr.Markdown(
            "Keep the background, or give a mask of the picture's size: white on the object, or `cutout.png` of the "
            "downloads with more or less of it transparent."
        )
        mask = picture_input(gr, "A corrected mask")
    return background, cut, mask
