"""What the files of this folder share: the device, how near to the CPU it comes, and how little is run."""

from dataclasses import fields, is_dataclass, replace

import torch

import pretend_device
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.geometry.cameras import Cameras

DEVICE = pretend_device.NAME
# Some sums are made in another order there.
NEAR = {"atol": 1e-4, "rtol": 1e-4}
FEW = DiscoverConfig(num_tokens=2, num_candidates=4, steps=2, batch=2, planting=2, exemplars=1, seed=3)


def moved(thing):
    """The same with every tensor and camera in it on the device."""
    if isinstance(thing, torch.Tensor | Cameras):
        return thing.to(DEVICE)
    if is_dataclass(thing):
        return replace(thing, **{f.name: moved(getattr(thing, f.name)) for f in fields(thing) if f.init})
    if isinstance(thing, tuple | list):
        return type(thing)(map(moved, thing))
    return thing
