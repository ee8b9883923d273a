"""Objects in memory for a discovery: recorded, or prepared for the UNet that runs at every step (joint, alone)."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.model_facts import ModelFacts, model_facts
from keyorbit.diffusion.prepare import Prepared, Shown, object_generator, on_one_rig, prepare_together
from keyorbit.diffusion.recording import Recording, in_batches, record_together, settled_batch, unet_maps
from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.source import check_shares
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import Objects
from keyorbit.objects.fingerprint import mark_of, object_fingerprint
from keyorbit.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class MemorySource:
    """Recordings of this process's objects, in memory, without their pictures."""

    facts: ModelFacts
    versions: int
    device: torch.device
    count: int
    recordings: Mapping[int, Recording]
    mark: str = ""

    def __len__(self) -> int:
        return self.count

    def shown(self, number: int) -> Shown:
        return self.recordings[number].shown

    def ahead(self, numbers: Sequence[int]) -> None:
        """All is here."""

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        return self.recordings[number].maps(tokens)


@dataclass(frozen=True, eq=False)
class UnetSource:
    """The UNet run with the tokens at every step (modes joint and alone); the objects are kept prepared."""

    facts: ModelFacts
    versions: int
    count: int
    backend: Backend
    config: SettledConfig
    objects: Mapping[int, tuple[Prepared, Shown]]
    mark: str = ""

    @property
    def device(self) -> torch.device:
        return self.backend.device

    def __len__(self) -> int:
        return self.count

    def shown(self, number: int) -> Shown:
        return self.objects[number][1]

    def ahead(self, numbers: Sequence[int]) -> None:
        """All is here."""

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        prepared, mode, kind = self.objects[number][0], self.config.mode, self.config.maps
        return unet_maps(self.backend, [prepared], tokens, self.facts.layers, mode, kind)


def open_source(
    backend: Backend,
    objects: Objects,
    config: SettledConfig,
    ranks: Ranks,
    progress: Callable[[int, int], None],
) -> MemorySource | UnetSource:
    """Record this process's objects; where the UNet runs at every step (joint, alone), they are only prepared.

    Several go through the model together, see :func:`keyorbit.diffusion.recording.settled_batch`.

    Raises:
        InputError: there is no object, or the objects do not fit the model or share no set of cameras.
    """
    isolated, began = config.mode == "isolated", time.monotonic()
    recordings: dict[int, Recording] = {}
    prepared: dict[int, tuple[Prepared, Shown]] = {}
    cameras: Cameras | None = None
    marks, several = list[str](), backend.layout.num_views > 1
    check_shares(len(objects), ranks)
    numbered = enumerate(on_one_rig(objects, backend))
    for some in in_batches(numbered, settled_batch(None, backend.device) * ranks.count):
        mine = {number: thing for number, (thing, _) in some if ranks.owns(number)}
        marks += [object_fingerprint(thing, several) for _, (thing, _) in some]
        generators = [object_generator(config.prepare.seed, number) for number in mine]
        if mine and isolated:
            recorded = record_together(list(mine.values()), backend, config.recording, generators)
            recordings |= zip(mine, (one.without_pictures() for one in recorded), strict=True)
        elif mine:
            items = prepare_together(list(mine.values()), backend, config.prepare, generators)
            prepared |= zip(mine, ((item, item.shown()) for item, _ in items), strict=True)
        last, (_, cameras) = some[-1]
        progress(last + 1, len(objects))
    facts, versions, count = model_facts(backend, config.layers, cameras), config.prepare.versions, len(objects)
    held = sum(layer.query.nbytes for known in recordings.values() for layer in known.queries["grid"].layers) / 1e6
    what = f"queries, {held:.1f} MB" if isolated else "latents"
    here = len(recordings) + len(prepared)
    log.info("%s of %d objects in %d versions each, in %.1f s", what, here, versions, time.monotonic() - began)
    if isolated:
        return MemorySource(facts, versions, backend.device, count, recordings, mark_of(marks))
    return UnetSource(facts, versions, count, backend, config, prepared, mark_of(marks))
