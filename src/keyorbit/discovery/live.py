"""Objects that are prepared anew whenever a step asks for them: other warps and noise each time, and none is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.model_facts import ModelFacts, model_facts
from keyorbit.diffusion.prepare import Shown, object_cameras, object_generator, prepare_together
from keyorbit.diffusion.recording import record, unet_maps
from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.source import check_shares
from keyorbit.objects.dataset import Objects, ObjectViews
from keyorbit.ranks import Ranks


@dataclass(frozen=True, eq=False)
class LiveSource:
    """What is asked for by number are not objects but draws of them: 0, 1, … over shuffled passes through all objects.

    A draw is the same whenever it is asked for. Silhouettes are not known, which nothing here asks for.
    """

    facts: ModelFacts
    backend: Backend
    config: SettledConfig
    objects: Objects
    recent: dict[int, Tensor] = field(default_factory=dict)

    @property
    def versions(self) -> int:
        return self.config.prepare.versions

    @property
    def device(self) -> torch.device:
        return self.backend.device

    def __len__(self) -> int:
        return len(self.objects)

    def draw(self, number: int) -> tuple[ObjectViews, torch.Generator]:
        """The object of a draw, and the generator of its warps and noise."""
        seed, count = self.config.prepare.seed, len(self.objects)
        order = torch.randperm(count, generator=object_generator(seed, number // count))
        return self.objects[int(order[number % count])], object_generator(seed + 1, number)

    def shown(self, number: int) -> Shown:
        """The warps of a draw whose maps were computed last."""
        warps = self.recent[number]
        return Shown(warps, warps.new_empty(*warps.shape[:2], 0, 0, dtype=torch.bool), warps[0, :, :0, :0])

    def ahead(self, numbers: Sequence[int]) -> None:
        """Nothing is read ahead."""

    def maps(self, number: int, tokens: Float[Tensor, "token width"]) -> list[LayerMaps]:
        thing, generator = self.draw(number)
        config = self.config
        if config.mode == "isolated":
            recording = record(thing, self.backend, config.recording, generator)
            warps, layers = recording.shown.warps, recording.maps(tokens)
        else:
            ((prepared, _),) = prepare_together([thing], self.backend, config.prepare, [generator])
            warps = prepared.warps
            layers = unet_maps(self.backend, [prepared], tokens, self.facts.layers, config.mode, config.maps)
        self.recent[number] = warps
        for old in [*self.recent][: -max(config.batch, 1)]:
            del self.recent[old]
        return layers


def open_live(backend: Backend, objects: Objects, config: SettledConfig, ranks: Ranks) -> LiveSource:
    """The objects as a source; nothing is done yet.

    Raises:
        InputError: there are fewer objects than processes, or the first does not fit the model.
    """
    check_shares(len(objects), ranks)
    facts = model_facts(backend, config.layers, object_cameras(objects[0], backend))
    return LiveSource(facts, backend, config, objects)
