"""The tab that shows the attention of one token, layer by layer."""

from typing import TYPE_CHECKING, Any

from keyorbit.app.calls import KEYPOINTS
from keyorbit.app.parts import AT_ONCE, at_work, examples_of, picture_input, tokens_of, told_who
from keyorbit.app.uploads import open_picture
from keyorbit.diffusion.tokens import Tokens

if TYPE_CHECKING:
    from keyorbit.app.studio import Studio


def attention_tab(gr: Any, studio: "Studio", tokens: Any) -> None:
    """Make the tab."""
    with gr.Row():
        with gr.Column(scale=1, min_width=260):
            picture = picture_input(gr, "A picture of one object")
            token = gr.Number(0, label="Keypoint", precision=0, minimum=0, maximum=KEYPOINTS[1] - 1)
            start = gr.Button("Show its attention", variant="primary", elem_id="attend")
            examples_of(gr, picture, "attention_example")
        with gr.Column(scale=3, min_width=320):
            panel = gr.HTML("<p>One token's attention, layer by layer.</p>", elem_id="layers", label="Attention")

    async def show(picture: str | None, token: int | float | None, chosen: tuple[Tokens, ...], request: Any) -> str:
        errand = studio.visits.errand(request.session_hash)

        def work() -> str:
            image = open_picture(picture, studio.limits)
            return studio.attention(image, tokens_of(studio, chosen), errand, int(token or 0))

        return await at_work(gr, errand, work)

    options = {"concurrency_id": "model", "concurrency_limit": AT_ONCE, "api_name": "attention"}
    start.click(told_who(gr, show), [picture, token, tokens], panel, **options)
