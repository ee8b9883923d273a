"""The steps of a discovery, by one process or several, and its checkpoints."""

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.maps import join_objects, token_maps
from keyorbit.discovery.choices import CHECKPOINT
from keyorbit.discovery.config import DiscoverConfig, SettledConfig, plain_settings
from keyorbit.discovery.draws import first_shuffled
from keyorbit.discovery.initial import initial_tokens
from keyorbit.discovery.needs import JUDGES, KEPT
from keyorbit.discovery.objective import Observed
from keyorbit.discovery.selection import Selection, choose_tokens
from keyorbit.discovery.source import Source
from keyorbit.errors import InputError
from keyorbit.geometry.heatmaps import gaussian_kl, normalize, resize
from keyorbit.geometry.hull import grown_masks
from keyorbit.ranks import Ranks
from keyorbit.storage.checkpoint import (
    check_tensors,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from keyorbit.storage.settings import completed, goes_on_to
from keyorbit.values import Amount, from_values

log = logging.getLogger(__name__)

# Where a run is that says nothing of it, as those of versions that knew no other.
_PLAIN = "float32 on cpu"


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on: how many steps are done, and whether it has another number of steps than it had."""

    step: int = 0
    lengthened: bool = False


class DiscoveryRun(ABC):
    """The state of one discovery: what it reads, its tokens and optimizer. What it minimises is the subclass's.

    Each process computes the maps of its own objects; they are then put together, and every process has the whole
    batch, the same loss and the same step. Gradients are summed object by object in the order of the batch, so the
    number of processes does not show in the tokens, but for rounding on devices that take all objects at once.
    """

    def __init__(self, source: Source, config: SettledConfig, ranks: Ranks) -> None:
        self.source, self.config, self.ranks, self.kind = source, config, ranks, config.maps
        self.side = config.map_size or 2 * source.facts.latent_side
        self.tokens = initial_tokens(source.facts.text_rows, config).to(source.device)
        self.optimizer = torch.optim.Adam(self.tokens.parameters(), lr=config.rate)
        self.known: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.moved: dict[int, Tensor] = {}

    @abstractmethod
    def begin(self, progress: Callable[[int, int], None]) -> None:
        """What comes before the first step, reported as ``progress(done, total)``."""

    @abstractmethod
    def temperature_at(self, number: int) -> float:
        """The temperature of step ``number``."""

    @abstractmethod
    def terms(self, objects: Sequence[int], maps: Tensor) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss on a batch, and their ``total``; maps as :meth:`maps` returns them."""

    @abstractmethod
    def select(self) -> Selection:
        """Choose the keypoints among the candidates, by the :meth:`judges`."""

    @abstractmethod
    def learnt(self) -> dict[str, Tensor]:
        """What the method has learnt besides the tokens, for a checkpoint."""

    @abstractmethod
    def load_learnt(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`learnt` returned."""

    @final
    def maps(
        self, objects: Sequence[int], tokens: Float[Tensor, "object token width"], temperature: float
    ) -> Float[Tensor, "object version view token side side"]:
        """Maps of the chosen objects as :func:`token_maps` makes them, each object with tokens of its own."""
        layout, versions, own = self.source.facts.layout, self.source.versions, tokens.unbind(0)
        mine = [place for place, number in enumerate(objects) if self.ranks.owns(number)]
        # A GPU is kept busy by large operations; the memory next to a processor holds small ones.
        together = 1 if self.source.device.type == "cpu" else max(1, len(mine))
        parts = []
        for start in range(0, len(mine), together):
            some = mine[start : start + together]
            layers = join_objects([self.source.maps(objects[place], own[place]) for place in some])
            made = token_maps(layers, layout, self.kind, self.side, temperature)
            parts.append(rearrange(made, "(o n) ... -> o n ...", n=versions))
        if self.ranks.count == 1:
            return torch.cat(parts)
        found = dict(zip(mine, (one for part in parts for one in part), strict=True))
        each = (versions, layout.num_views, tokens.shape[1], self.side, self.side)
        return self._together(len(objects), found, each)

    @final
    def _together(self, count: int, found: dict[int, Tensor], each: tuple[int, ...]) -> Tensor:
        """What all processes found, in one tensor; ours keeps its gradient."""
        if self.ranks.count == 1:
            return torch.stack([found[place] for place in range(count)])
        whole = torch.zeros(count, *each, device=self.source.device)
        for place, value in found.items():
            whole[place] = value.detach()
        whole = self.ranks.sum(whole)
        return torch.stack([found.get(place, whole[place]) for place in range(count)])

    @final
    def heatmaps(self, maps: Float[Tensor, "*batch side side"]) -> Float[Tensor, "*batch side side"]:
        """Maps as heatmaps, which sum to 1."""
        return maps if self.kind == "logits" else normalize(maps)

    @final
    def warps(self, objects: Sequence[int]) -> Float[Tensor, "object version view 2 3"]:
        """How each version's views are warped, where no silhouettes are needed."""
        versions, views = self.source.versions, self.source.facts.layout.num_views
        found = {place: self._warps(number) for place, number in enumerate(objects) if self.ranks.owns(number)}
        return self._together(len(objects), found, (versions, views, 2, 3))

    @final
    def _warps(self, number: int) -> Float[Tensor, "version view 2 3"]:
        """The warps of one of our objects, brought to the device once."""
        if number in self.moved:
            return self.moved[number]
        found = self.source.shown(number).warps.to(self.source.device)
        if len(self.moved) < KEPT:
            self.moved[number] = found
        return found

    @final
    def outlines(
        self, objects: Sequence[int]
    ) -> tuple[
        Float[Tensor, "object version view 2 3"],
        Float[Tensor, "object version view side side"],
        Float[Tensor, "object view side side"],
    ]:
        """Warps, silhouettes and distances from them, at the maps' size."""
        versions, views, size = self.source.versions, self.source.facts.layout.num_views, (self.side, self.side)
        warps, masks, distances = {}, {}, {}
        for place, number in enumerate(objects):
            if self.ranks.owns(number):
                warps[place], masks[place], distances[place] = self._silhouettes(number)
        count = len(objects)
        return (
            self._together(count, warps, (versions, views, 2, 3)),
            self._together(count, masks, (versions, views, *size)),
            self._together(count, distances, (views, *size)),
        )

    @final
    def _silhouettes(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Warps, silhouettes and distances from them of one of our objects, at the maps' size."""
        if number in self.known:
            return self.known[number]
        shown, device, size = self.source.shown(number), self.source.device, (self.side, self.side)
        warps, masks = shown.warps.to(device), grown_masks(shown.masks, size).to(device)
        found = warps, masks, resize(shown.distance, size).to(device)
        if len(self.known) < KEPT:
            self.known[number] = found
        return found

    @final
    def step(self, number: int) -> dict[str, Float[Tensor, ""]]:
        """Step ``number``, from 0, on a batch drawn for it; the terms of its loss, which stay on the device."""
        picked = self.picked(number)
        if number + 1 < self.config.steps:
            self._ahead(self.picked(number + 1))
        progress = number / max(1, self.config.steps)
        return self.descend(picked, self.temperature_at(number), partial(self.terms, picked), self.optimizer, progress)

    @final
    def batches(self, objects: Sequence[int]) -> Iterator[Sequence[int]]:
        """Objects a batch at a time, in order; the next batch is read while one is computed."""
        for start in range(0, len(objects), self.config.batch):
            end = start + self.config.batch
            self._ahead(objects[end : end + self.config.batch])
            yield objects[start:end]

    @final
    def _ahead(self, objects: Sequence[int]) -> None:
        self.source.ahead([number for number in objects if self.ranks.owns(number)])

    @final
    def picked(self, number: int) -> list[int]:
        """The objects of step ``number``; or its draws of them, see :class:`keyorbit.discovery.live.LiveSource`."""
        if "draws" in self.config.published:
            return list(range(number * self.config.batch, (number + 1) * self.config.batch))
        generator = torch.Generator().manual_seed((self.config.seed * 10**7 + number) % 2**63)
        return first_shuffled(len(self.source), self.config.batch, generator)

    @final
    def judges(self) -> Sequence[int]:
        """The objects by which keypoints are chosen, in order: all, or as many as tell a mean, drawn by the seed."""
        count = len(self.source)
        if count <= JUDGES:
            return range(count)
        return sorted(first_shuffled(count, JUDGES, torch.Generator().manual_seed(self.config.seed)))

    @final
    def descend(
        self,
        objects: Sequence[int],
        temperature: float,
        terms_of: Callable[[Tensor], dict[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        progress: float,
    ) -> dict[str, Float[Tensor, ""]]:
        """One step down the total of ``terms_of(maps)`` on these objects, at a rate that falls with ``progress`` 0…1.

        As published by StableKeypoints, where that is asked for, it does not fall.

        Nothing is read from the device, which would have to finish first: so the caller finds out whether the loss is
        finite, see :func:`told`.
        """
        tokens = self.tokens.embedding.detach().repeat(len(objects), 1, 1).requires_grad_()
        terms = terms_of(self.maps(objects, tokens, temperature))
        total = terms["total"]
        if total.requires_grad:  # not where every object of this batch is another process's
            total.backward()  # type: ignore[no-untyped-call]
        gradients = torch.zeros_like(tokens) if tokens.grad is None else tokens.grad
        self.tokens.embedding.grad = self.ranks.sum(gradients).sum(0)
        # A linear decay to a tenth: the tokens settle instead of circling.
        falls = 0.0 if "rate" in self.config.published else 0.9
        for group in optimizer.param_groups:
            group["lr"] = self.config.rate * (1 - falls * progress)
        optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    @final
    def ranked(self, locate: Callable[[Observed], tuple[Tensor, Tensor]]) -> Selection:
        """Choose by sharpness, agreement and the heatmaps' share beside the object.

        Args:
            locate: where the tokens of a batch are, [object token _], and how far their views disagree, [object token].
        """
        sharpness, points, errors, off_object = [], [], [], []
        for batch in self.batches(self.judges()):
            maps = self.maps(batch, self.everywhere(len(batch)), self.config.temperature)
            seen = self.observe(batch, maps)
            sharpness.append(gaussian_kl(seen.heatmaps[:, 0]).mean(1))
            off_object.append((seen.heatmaps * (1 - seen.masks[:, :, :, None])).sum((-2, -1)).mean((1, 2)))
            found, error = locate(seen)
            points.append(found)
            errors.append(error)
        ranks = torch.cat(sharpness), torch.cat(points), torch.cat(errors)
        return choose_tokens(*ranks, self.config.num_tokens, off_object=torch.cat(off_object))

    @final
    def everywhere(self, count: int) -> Float[Tensor, "object token width"]:
        """The tokens as they are, for each of that many objects."""
        return self.tokens.embedding.expand(count, -1, -1)

    @final
    def observe(self, objects: Sequence[int], maps: Float[Tensor, "object version view token side side"]) -> Observed:
        """The maps as heatmaps, with silhouettes and warps at their size."""
        return Observed(self.heatmaps(maps), *self.outlines(objects))

    @final
    def state(self) -> dict[str, Tensor]:
        """Everything that was learnt, besides the optimizer's own state."""
        return {"embedding": self.tokens.embedding} | self.learnt()

    @final
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        self.tokens.embedding.data.copy_(tensors["embedding"])
        self.load_learnt(tensors)

    @property
    def place(self) -> str:
        """The type of numbers that the model computes in, and the kind of device."""
        return f"{self.source.facts.dtype} on {self.source.device.type}"

    @final
    def check(self, step: int, kept: str) -> None:
        """Raise InputError where what was learnt in ``step`` steps is not finite; ``kept`` says what there is then."""
        if not torch.stack(torch._foreach_norm([x.detach() for x in self.state().values()])).isfinite().all():
            raise InputError(f"{_where('tokens are no numbers any more', step, self.config.steps)}; {kept}")

    @final
    def save(self, out: Path, step: int, settings: dict[str, Any]) -> None:
        """Write the state after ``step`` steps, which :meth:`check` found to be finite."""
        tensors = self.state() | optimizer_tensors(self.optimizer)
        about: dict[str, Any] = {"step": step, "settings": settings}
        about |= {"place": self.place} if self.place != _PLAIN else {}
        about |= {"objects": self.source.mark} if self.source.mark else {}
        save_checkpoint(out / CHECKPOINT, tensors, about, digest=True)

    @final
    def restore(self, out: Path, settings: dict[str, Any]) -> Resumed:
        """Take up the state that :meth:`save` wrote, if there is one.

        Another device or type of numbers is no other run: maps agree within a tolerance. It is told, since the end is
        bit-identical only on the same. Nor is another number of steps: it is told what changes with it.

        Raises:
            InputError: it was made with other settings or of other objects, or more steps are done than the run has.
        """
        path = out / CHECKPOINT
        if not path.exists():
            return Resumed()
        tensors, metadata = load_checkpoint(path)
        about = from_values(_Header, metadata, str(path))
        # Settings that there were not yet had the value that is the default now.
        then = completed(about.settings, plain_settings(DiscoverConfig()))
        before = goes_on_to(path, settings, then, about.step, {"model": self.source.facts.older_fingerprint})
        if about.objects not in ("", self.source.mark) and self.source.mark:
            raise InputError(
                f"{path} was made of other objects, or of these with other masks or backgrounds: give the same, or "
                "another folder"
            )
        check_tensors(tensors, self.state(), self.optimizer, path)
        if about.place != self.place and self.ranks.main:
            how = "its end is not bit for bit that of a run that was never stopped"
            log.warning("%s was written in %s, and the run goes on in %s: %s", path, about.place, self.place, how)
        if before is not None and self.ranks.main:
            how = f"learning rate and temperature are from here on those of a run of {self.config.steps} steps"
            log.warning("%s goes on to %d steps instead of %d: %s", path, self.config.steps, before, how)
        self.load_state(tensors)
        restore_optimizer(self.optimizer, tensors)
        return Resumed(about.step, before is not None)


@dataclass(frozen=True)
class _Header:
    """What a checkpoint holds besides tensors."""

    step: Amount
    settings: dict[str, Any]
    place: str = _PLAIN
    objects: str = ""


def told(
    steps: Sequence[Mapping[str, Tensor]], first: int, count: int, kept: str = "nothing was written"
) -> list[dict[str, float]]:
    """The terms of successive steps as numbers, read from the device at once; ``first`` of ``count`` is the first's.

    Raises:
        InputError: a loss is not finite; the message ends with ``kept``, what there is of the run then.
    """
    if not steps:
        return []
    rows = torch.stack([torch.stack(list(terms.values())) for terms in steps]).tolist()
    found = [dict(zip(terms, row, strict=True)) for terms, row in zip(steps, rows, strict=True)]
    for number, terms in enumerate(found, first):
        if not math.isfinite(terms["total"]):
            raise InputError(f"{_where('the loss is ' + str(terms['total']), number, count)}; {kept}")
    return found


def _where(what: str, step: int, count: int) -> str:
    return f"{what} at {step / max(1, count):.0%} of the steps: lower the rate or the weights"
