"""Both passes of Zero123++'s UNet over one step, as they are or compiled."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from keyorbit.errors import InputError

Passes = Callable[[Any, Tensor, Tensor, Tensor, Tensor, Mapping[str, Any]], Tensor]


def two_passes(
    unet: Any, noised: Tensor, latents: Tensor, timestep: Tensor, context: Tensor, added: Mapping[str, Any]
) -> Tensor:
    """The condition pass on ``noised``, then the grid pass on ``latents``, which also attends to it; its prediction.

    ``added`` are further arguments of the grid pass: what a ControlNet says. The batch is that of ``timestep``.
    """
    reference: dict[str, Tensor] = {}
    unet(noised, timestep, context, cross_attention_kwargs={"mode": "w", "reference": reference})
    reading = {"mode": "r", "reference": reference}
    prediction: Tensor = unet(latents, timestep, context, cross_attention_kwargs=reading, return_dict=False, **added)[0]
    return prediction


def compiled_passes() -> Passes:
    """:func:`two_passes` as one graph by ``torch.compile``, made at the first call and kept on disk for later runs.

    Batches of 2 or more share one compilation; another size of the latents makes another.

    Raises:
        InputError: by the first call, where torch cannot compile on this machine.
    """
    from torch._dynamo import maybe_mark_dynamic
    from torch._dynamo.exc import TorchDynamoException

    # The cache on disk is off by default in torch 2.4.
    made: Passes = torch.compile(two_passes, options={"fx_graph_cache": True})

    def passes(
        unet: Any, noised: Tensor, latents: Tensor, timestep: Tensor, context: Tensor, added: Mapping[str, Any]
    ) -> Tensor:
        for tensor in (noised, latents, timestep, context):
            maybe_mark_dynamic(tensor, 0)
        try:
            return made(unet, noised, latents, timestep, context, added)
        except TorchDynamoException as error:
            # torch names what failed on one line and why on the next; advice for its own developers follows.
            why = " ".join(str(error).split("\n\n")[0].split("\n")[:2]).strip() or type(error).__name__
            raise InputError(f"the UNet cannot be compiled here: {why}; load the model without compile") from error

    return passes
