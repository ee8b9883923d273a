"""Attention maps the slow, obvious way: hooks on to_q and on the context, then a softmax over every token."""

import torch


def watch(unet):
    """Remember every cross-attention layer's input; returns the list it fills and the hooks' handles."""
    seen, handles = [], []
    for name, module in unet.named_modules():
        if name.endswith("attn2"):

            def hook(layer, args, kwargs, name=name):
                seen.append((name, layer, args[0].detach()))

            handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
    return seen, handles


def maps(layer, hidden, context, text_tokens=77):
    """[batch head query token], float32: probabilities of the tokens behind the text, one head and item at a time."""
    query, key = layer.to_q(hidden).float(), layer.to_k(context).float()
    with torch.autocast("cpu", enabled=False):
        return _softmax(layer, query, key, text_tokens)


def _softmax(layer, query, key, text_tokens):
    width = query.shape[-1] // layer.heads
    out = []
    for item in range(len(query)):
        heads = []
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            logits = query[item][:, part] @ key[item][:, part].T / width**0.5
            heads.append(torch.softmax(logits, dim=-1)[:, text_tokens:])
        out.append(torch.stack(heads))
    return torch.stack(out)
