"""Short hashes of what a model is shown of objects, by which data are known again."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from keyorbit.objects.dataset import ObjectViews


def object_fingerprint(thing: ObjectViews, several: bool = True) -> str:
    """A short hash of what the model is shown of an object: its pictures and silhouettes as they were read.

    ``several``: whether the model has several views, and so the input picture may be recentred.
    """
    picture = thing.shown_image(several)
    digest = hashlib.sha256(f"{picture.mode} {picture.size}".encode())
    digest.update(picture.tobytes())
    if several and thing.framing.recentred:
        digest.update(f"{thing.framing.seen}".encode())
    for tensor in (thing.views, thing.masks):
        if tensor is not None:
            feed(digest, tensor)
    return digest.hexdigest()[:16]


def mark_of(fingerprints: Iterable[str]) -> str:
    """A short hash of objects in their order, by their fingerprints."""
    return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()[:16]


def feed(digest: Any, tensor: Tensor) -> None:
    """Add a tensor's bytes to a hash."""
    digest.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
