"""Which attention layers of a diffusers model read its context, and which of them have maps that can be captured."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from keyorbit.errors import InputError

_AS_THEY_RUN = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


def cross_attention_layers(unet: nn.Module, pattern: str | Sequence[str] = "*") -> list[str]:
    """The names of a UNet's cross-attention layers that match a glob pattern (or one of several), as they run.

    Names are the module paths, such as ``up_blocks.1.attentions.0.transformer_blocks.0.attn2``; patterns match from
    the start and may leave out the middle: ``"up_blocks.*.attn2"``. Some UNets, such as that of Stable Diffusion's x4
    upscaler, read the context in ``attn1`` too. Layers whose queries are moments and not places, as in Stable Video
    Diffusion's temporal blocks, have no map and are not among them.

    Raises:
        InputError: nothing matches, or the model has no cross-attention.
    """
    return choose_layers(layers_with_context(unet), pattern, unet)


def choose_layers(layers: Mapping[str, Any], pattern: str | Sequence[str], unet: nn.Module) -> list[str]:
    """Of :func:`layers_with_context` those that have maps and match; raises as :func:`cross_attention_layers` does."""
    kind = type(unwrapped(unet)).__name__
    patterns = [pattern] if isinstance(pattern, str) else list(pattern)
    cross = [name for name, layer in layers.items() if "temporal" not in name and not _joint(layer)]
    if not cross:
        raise InputError(
            f"{kind} has no layer of cross-attention ('attn2' with a context), where tokens are read: models without a "
            "text, and those whose text and picture share one attention (Stable Diffusion 3, Flux), cannot be captured"
        )
    # diffusers lists the middle block of a UNet behind the up blocks, and runs it before them.
    cross.sort(key=lambda name: _AS_THEY_RUN.get(name.split(".")[0], 0))
    found = [name for name in cross if any(fnmatchcase(name, p) for p in patterns)]
    if not found:
        raise InputError(f"no cross-attention layer matches {pattern!r}; there are: {', '.join(cross)}")
    for name in found:
        if why := _not_plain(layers[name]):
            raise InputError(
                f"{name} of {kind} {why}: its logits are not those of queries and keys, and cannot be captured"
            )
    return found


def _joint(layer: Any) -> bool:
    """Whether text and picture share one softmax (UnCLIP, Kandinsky 2, DeepFloyd IF)."""
    return getattr(layer, "add_k_proj", None) is not None


def _not_plain(layer: Any) -> str:
    """Why a layer's logits are not the products of its projections; empty if they are."""
    norms = ("norm_q", "norm_k", "group_norm", "spatial_norm")
    if any(getattr(layer, norm, None) is not None for norm in norms) or isinstance(layer.norm_cross, nn.GroupNorm):
        return "normalises its queries, or its context over all rows"
    if layer.inner_kv_dim != layer.inner_dim:
        return "shares its keys among several heads"
    return ""


def layers_with_context(unet: nn.Module) -> dict[str, Any]:
    """The layers that read the context, by name, in the order in which they are registered.

    The UNet's own ``attn_processors`` looks for attributes of all modules: 10 ms a capture.

    Raises:
        InputError: it is no model, such as a whole pipeline.
    """
    if not isinstance(unet, nn.Module):
        raise InputError(f"attention is captured of a model, such as pipe.unet; not of a {type(unet).__name__}")
    found: dict[str, Any] = {}
    _find_layers(unwrapped(unet), "", found)
    return found


def _find_layers(module: nn.Module, within: str, found: dict[str, Any]) -> None:
    for name, child in module._modules.items():
        if child is None:
            continue
        if (name in ("attn1", "attn2") and getattr(child, "is_cross_attention", False)) or _joint(child):
            found[within + name] = child
        else:
            _find_layers(child, f"{within}{name}.", found)


def unwrapped(model: nn.Module) -> nn.Module:
    """The diffusers model within what wraps it: compiled, PEFT, several processes."""
    if isinstance(model, nn.DataParallel | DistributedDataParallel):
        return unwrapped(model.module)
    inner = getattr(getattr(model, "set_attn_processor", None), "__self__", model)
    return inner if isinstance(inner, nn.Module) else model
