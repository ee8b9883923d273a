"""Objects that are prepared anew whenever a step asks for them: other warps and noise each time.

Nothing is kept of them but views that the model had to generate, which would take far longer than all else.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.model_facts import ModelFacts, model_facts
from keyorbit.diffusion.prepare import (
    Shown,
    model_image,
    object_cameras,
    object_generator,
    prepare_together,
    several_views,
)
from keyorbit.diffusion.recording import record, unet_maps
from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.source import check_shares
from keyorbit.objects.dataset import Objects, ObjectViews, drawn
from keyorbit.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LiveSource:
    """What is asked for by number are not objects but draws of them: 0, 1, … over shuffled passes through all objects.

    A draw is the same whenever it is asked for. Silhouettes are not known, which nothing here asks for.

    Attributes:
        facts: of the model.
        backend: the model.
        config: the settings.
        objects: all of them.
        recent: warps of the draws that were asked for last, by number.
        generated: by number, the views of objects that come without, 8 bits a channel: the same in all draws.
    """

    facts: ModelFacts
    backend: Backend
    config: SettledConfig
    objects: Objects
    recent: dict[int, Tensor] = field(default_factory=dict)
    generated: dict[int, UInt8[Tensor, "view 3 height width"]] = field(default_factory=dict)

    @property
    def versions(self) -> int:
        return self.config.prepare.versions

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def mark(self) -> str:
        return ""

    def __len__(self) -> int:
        return len(self.objects)

    def draw(self, number: int) -> tuple[ObjectViews, torch.Generator]:
        """The object of a draw, and the generator of its warps and noise.

        For a model of a single view it is cut out and mirrored as its data set does, see :func:`drawn`.
        """
        seed, count = self.config.prepare.seed, len(self.objects)
        order = torch.randperm(count, generator=object_generator(seed, number // count))
        chosen, generator = int(order[number % count]), object_generator(seed + 1, number)
        if self.backend.layout.num_views == 1:
            return drawn(self.objects, chosen, generator), generator
        return self._with_views(self.objects[chosen], chosen), generator

    def _with_views(self, thing: ObjectViews, chosen: int) -> ObjectViews:
        """The object with views, its own or generated ones, beside the picture as the model was shown it."""
        if thing.views is not None:
            return thing
        picture = model_image(thing, self.backend)
        if chosen not in self.generated:
            if thing.framing.recentred:
                log.info("%s: %s", thing.name, thing.framing.words)
            (seen,) = several_views([thing], self.backend, [object_generator(self.config.prepare.seed, chosen)])
            self.generated[chosen] = (seen.views * 255).round().byte()
        views = self.generated[chosen].float() / 255
        return replace(thing, input_image=picture, views=views, masks=None, recentre=False)

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
