"""Record what the learnable tokens attend to inside a diffusers UNet, without disturbing the UNet.

Two ways to run the tokens, both exact:

- ``isolated``: the image branch sees the text tokens only, so its output is bit-identical to the UNet without
  tokens; the token columns are computed beside it.
- ``joint``: text tokens and learnable tokens share one softmax, so the tokens also feed back into the image.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn

from keyorbit.diffusion.captured import PASSES, LayerRecord, Pass
from keyorbit.diffusion.choices import Mode
from keyorbit.diffusion.layer_capture import Heads, LastLayerSeen, LayerCapture, Wanted, is_captured, pass_of
from keyorbit.diffusion.layers import choose_layers, layers_with_context, unwrapped
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.turns import own_turn
from keyorbit.errors import InputError

TEXT_TOKENS = 77


class AttentionRecord:
    """The layers recorded by :func:`capture_attention`, in the order in which the UNet ran them.

    A new forward of the same pass replaces the records of the one before.
    """

    def __init__(self, layers: Mapping[tuple[Pass, str], LayerRecord]) -> None:
        self._layers = layers

    def layers(self, unet_pass: Pass = "grid") -> list[LayerRecord]:
        """The recorded layers of one pass.

        Raises:
            InputError: that pass did not run inside the ``with`` block, or was not asked for.
        """
        found = [record for (which, _), record in self._layers.items() if which == unet_pass]
        if not found:
            raise InputError(f"no attention of the {unet_pass} pass was recorded: run it inside the with block")
        return found

    def token_logits(self, unet_pass: Pass = "grid") -> list[LayerMaps]:
        """Per layer, the logits of the learnable tokens, ready for :func:`keyorbit.diffusion.maps.view_maps`."""
        return [LayerMaps(r.name, r.token_logits, r.size) for r in self.layers(unet_pass)]

    def token_maps(self, unet_pass: Pass = "grid") -> list[LayerMaps]:
        """Per layer, the learnable tokens' columns of the softmax over all tokens (the attention maps)."""
        return [LayerMaps(r.name, r.probabilities, r.size) for r in self.layers(unet_pass)]


@contextmanager
def capture_attention(
    unet: nn.Module,
    layers: str | Sequence[str] = "*",
    passes: Sequence[Pass] = PASSES,
    mode: Mode = "isolated",
    text_tokens: int = TEXT_TOKENS,
    *,
    heads: Heads = "each",
    normalizer: bool = True,
    queries: bool = False,
    stop: bool = False,
) -> Iterator[AttentionRecord]:
    """Record the learnable tokens' cross-attention in every UNet forward inside the ``with`` block.

    The context given to the UNet is ``[batch text_tokens+K width]``, learnable tokens last
    (:meth:`keyorbit.diffusion.tokens.Tokens.append_to`). Only the K columns are kept; gradients flow through them.
    Attention processors stay as they are and may be exchanged inside the block; what capture puts before the layers is
    taken away at the end, also after an exception. Another thread that wants the same model waits until then. With
    gradient checkpointing, call ``backward`` inside the block: the layers run once more there.

    Args:
        unet: a diffusers UNet, before or after its pipeline installed processors of its own; also one with an
            IP-Adapter, a motion adapter or of videos, a ControlNet, or a transformer with cross-attention (PixArt); the
            table in docs/how-it-works.md has all. ``encoder_attention_mask`` may have a column for each text row, or
            for each row; masked rows do not count.
        layers: glob pattern(s) on the layers' names; see :func:`cross_attention_layers`.
        passes: which of Zero123++'s two UNet passes to record. A forward that names no pass is a grid pass.
        mode: ``isolated`` or ``joint``; see the module's text.
        text_tokens: context rows before the learnable ones (77 for CLIP).
        heads: ``each`` keeps K columns per head, ``mean`` K columns of logits and K of attention for all heads.
        normalizer: without it only the logits are known, and the text tokens cost nothing.
        queries: keep the scaled queries too, from which the logits of any other token follow.
        stop: leave the UNet behind the last chosen layer. The condition pass then returns None, and **the block ends**
            with the first pass that completes the record (the grid pass, if asked for): what stands behind
            that call in the block does not run. Not for gradient checkpointing or a compiled UNet.

    Raises:
        InputError: nothing matches ``layers``, the model cannot be captured, or another capture is active on it. Inside
            the block: the context, its mask, or a layer's size does not fit.
    """
    if isinstance(unet, nn.DataParallel) and len(unet.device_ids) > 1:
        raise InputError(
            "DataParallel copies the model to every GPU at each call, where nothing is recorded: run a process for "
            "each GPU, and capture the model within"
        )
    with own_turn(unet):
        attentions = layers_with_context(unet)
        chosen = choose_layers(attentions, layers, unet)
        if is_captured(attentions.values()):
            raise InputError("attention of this UNet is being captured already; end that with block first")
        if (
            mode == "isolated"
            and getattr(getattr(unwrapped(unet), "config", None), "addition_embed_type", None) == "text"
        ):
            raise InputError(
                f"{type(unwrapped(unet)).__name__} adds all rows of its context to the timestep (addition_embed_type "
                "is 'text'), so the picture cannot be kept from the tokens: capture with mode='joint'"
            )
        last = chosen[-1] if stop else None
        wanted = Wanted(tuple(passes), mode, text_tokens, heads, normalizer, queries, last)
        # Layers that are not chosen are left alone where they see the whole context.
        watched = chosen if mode == "joint" else list(attentions)
        captures = [LayerCapture(name, attentions[name], wanted, name in chosen) for name in watched]
        # Of the class: others may have put a forward of (*args, **kwargs) on the model itself.
        names = list(inspect.signature(type(unwrapped(unet)).forward).parameters)[1:]
        hook = unet.register_forward_pre_hook(partial(_note, names, wanted), with_kwargs=True)
        try:
            for capture in captures:
                capture.install()
            with _returning_early(unet, wanted.passes) if stop else nullcontext():
                yield AttentionRecord(wanted.layers)
        finally:
            hook.remove()
            for capture in captures:
                capture.remove()


def _note(
    names: Sequence[str], wanted: Wanted, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """A hook that notes, before each forward, the size of its latent and the rows of its context."""
    given = dict(zip(names, args, strict=False)) | kwargs
    if given.get("encoder_hidden_states_1") is not None:
        raise InputError(
            f"{type(unwrapped(module)).__name__} reads two contexts (encoder_hidden_states and "
            "encoder_hidden_states_1): learnable tokens are told from the text in one only, and it cannot be captured"
        )
    context, sample = given.get("encoder_hidden_states"), given[names[0]]
    context = context[0] if isinstance(context, tuple | list) else context
    reading: Mapping[str, Any] = given.get("cross_attention_kwargs") or {}
    rows = None if context is None else context.shape[-2]
    wanted.start(pass_of(reading.get("mode")), (sample.shape[-2], sample.shape[-1]), rows)


@contextmanager
def _returning_early(unet: nn.Module, passes: Sequence[Pass]) -> Iterator[None]:
    """Ends the ``with`` block at the pass that completes the record; an earlier pass only ends itself."""
    completing = "grid" if "grid" in passes else "condition"
    own, forward = vars(unet).get("forward"), unet.forward

    def shortened(*args: Any, **kwargs: Any) -> Any:
        try:
            return forward(*args, **kwargs)
        except LastLayerSeen as seen:
            if seen.unet_pass == completing:
                raise
            return None

    unet.forward = shortened
    try:
        yield
    except LastLayerSeen:
        pass
    finally:
        del unet.forward
        if own is not None:
            unet.forward = own
