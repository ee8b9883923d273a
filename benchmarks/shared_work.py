"""Recordings that many rows of a table share: every object is shown to the UNet once for the same settings.

In isolated mode none of it depends on the tokens. Warps and noise are those of seed 0 whatever the tokens' seed is.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import keyorbit as ko
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.found import Detection
from keyorbit.diffusion.backends.base import Backend
from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.discover import discover_from
from keyorbit.discovery.memory import MemorySource, open_source
from keyorbit.objects.dataset import Objects
from keyorbit.ranks import Ranks

# The largest things kept: sources of all training objects, and recordings of single objects. A row's seeds follow one
# another, so that what the first of them made is there for the others.
MOST_SOURCES, MOST_RECORDINGS = 4, 400


class SharedWork:
    """A memory of recordings; `clear` empties it, between categories for instance."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.sources, self.recordings = _Latest(MOST_SOURCES), _Latest(MOST_RECORDINGS)

    def source(self, backend: Backend, objects: Objects, config: SettledConfig) -> MemorySource:
        """All objects recorded for discoveries, once for the same objects, model and settings."""
        config = first_noise(config)
        key = (backend.fingerprint, tuple(thing.name for thing in objects), config.recording)
        return self.sources.get_or_make(key, lambda: open_source(backend, objects, config, Ranks(), lambda *_: None))

    def discover(self, backend: Backend, objects: Objects, config: ko.DiscoverConfig) -> ko.Tokens:
        """As `keyorbit.discover`."""
        settled = config.settled(backend)
        if settled.mode != "isolated":
            return ko.discover(backend, objects, config)
        return discover_from(self.source(backend, objects, settled), first_noise(settled))

    def detect_all(self, detector: KeypointDetector, objects: Objects) -> list[Detection]:
        """As `keyorbit.evaluation.evaluate.detect_all`."""
        return [detector.read(self.recording(detector, thing)) for thing in objects]

    def recording(self, detector: KeypointDetector, thing: ko.ObjectViews) -> Any:
        """As `KeypointDetector.record`."""
        key = (detector.backend.fingerprint, thing.name, detector.recording)
        return self.recordings.get_or_make(key, lambda: detector.record(thing))


def first_noise(config: SettledConfig) -> SettledConfig:
    """The same with warps and noise of seed 0."""
    return replace(config, prepare=replace(config.prepare, seed=0))


class _Latest(OrderedDict):
    """Keeps the last used ``most`` things."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or_make(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        while len(self) > self.most:
            self.popitem(last=False)
        return self[key]
