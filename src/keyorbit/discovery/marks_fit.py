"""Fit tokens to marked points: each marks its point's spot in the views of the marked objects, and its like on others.

First the tokens are planted on the marked objects, as discovery plants its candidates, in a softmax that cools. Where
the views have cameras, helpers are planted beside them, on points of one object's hull that lie far from all marks.
Then come objects without marks: their turn is found by all tokens together, and every token is moved to where its own
evidence and its place on the common shape are (:mod:`keyorbit.discovery.constellation_run`); the marks stay where they
were marked. Of every object each step reads one draw of noise.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.diffusion.maps import token_heatmaps
from keyorbit.diffusion.recording import Recording
from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.constellation_run import SPOT, WARM, Hull, misplaced
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.discovery.marks_frame import (
    Frame,
    Solid,
    common_turns,
    far_points,
    mean_places,
    solid_of,
    turns_of_marks,
)
from keyorbit.discovery.placing import PlacedMark
from keyorbit.discovery.run import told
from keyorbit.geometry.alignment import Form, stretched
from keyorbit.geometry.constellation import placed, turn_scores, upright
from keyorbit.geometry.evidence import heat_evidence, relative_heat
from keyorbit.geometry.heatmaps import gaussian
from keyorbit.geometry.views import Layout

# Heat that is as good as none, against a flat map.
_NO_HEAT = 1e-3


@dataclass(frozen=True, eq=False)
class Marked:
    """The marked points of one object.

    Attributes:
        number: of the object among the recordings.
        spots: heatmaps of the points, [view name side side].
        seen: 1 where a view sees a point that is marked, else 0, [view name].
        points: in radii, 0 where not marked or flat, [name 3].
        known: whether each is marked, [name].
    """

    number: int
    spots: Float[Tensor, "view name side side"]
    seen: Float[Tensor, "view name"]
    points: Float[Tensor, "name 3"]
    known: Bool[Tensor, " name"]


@dataclass(frozen=True, eq=False)
class Known:
    """Tokens that are known already, from a run: they do not change, and tell how objects are turned.

    Attributes:
        rows: of keypoints and helpers.
        places: of them.
        form: of the object that has them there.
    """

    rows: Float[Tensor, "token width"]
    places: Float[Tensor, "token 3"]
    form: Form


@dataclass(frozen=True, eq=False)
class Fitted:
    """The tokens of the marks.

    Attributes:
        rows: of the marks.
        helpers: that were planted beside them; none where a run's are known.
        frame: places of marks, then of helpers or known tokens; None without a constellation.
    """

    rows: Float[Tensor, "name width"]
    helpers: Float[Tensor, "helper width"]
    frame: Frame | None


class MarksFit:
    """What a fit reads, on one device: recordings, marks, and the tokens as they are so far."""

    def __init__(
        self,
        recordings: Sequence[Recording],
        marks: Mapping[int, Sequence[PlacedMark]],
        names: Sequence[str],
        start: Float[Tensor, "name_and_helper width"],
        known: Known | None,
        config: MarkConfig,
        settled: SettledConfig,
        layout: Layout,
        side: int,
    ) -> None:
        self.recordings, self.config, self.settled, self.layout, self.side = recordings, config, settled, layout, side
        self.device, self.names = start.device, len(names)
        self.generator = torch.Generator().manual_seed(config.seed)
        shape = settled.constellation
        able = all(one.cameras is not None and upright(one.cameras) for one in recordings)
        self.known = known if able else None
        fixed = start[:0] if self.known is None else self.known.rows
        self.solids = [
            solid_of(one, shape.angles, len(start) + len(fixed), i, self.device) if able else None
            for i, one in enumerate(recordings)
        ]
        self.marked = [self._marked(number, some, names) for number, some in marks.items()]
        self.others = [number for number in range(len(recordings)) if number not in marks]
        self.reference = max(range(len(self.marked)), key=lambda i: int(self.marked[i].known.sum()))
        # Helpers serve a constellation; what is known already has its own.
        helpers = len(start) - self.names if able and self.known is None else 0
        self.rows = start[: self.names + helpers].clone().requires_grad_()
        self.fixed = fixed
        self.turns: list[int] = [0] * len(self.marked)
        self.frame = self._framed(helpers) if able else None

    def _solid(self, number: int) -> Solid:
        solid = self.solids[number]
        if solid is None:
            raise ValueError("an object without cameras is not in space")
        return solid

    def _marked(self, number: int, some: Sequence[PlacedMark], names: Sequence[str]) -> Marked:
        views = len(self.recordings[number].shown.distance)
        xy, seen = torch.full((views, len(names), 2), 0.5), torch.zeros(views, len(names))
        points, known = torch.zeros(len(names), 3), torch.zeros(len(names), dtype=torch.bool)
        solid = self.solids[number]
        for mark in some:
            i = names.index(mark.name)
            xy[:, i], seen[:, i], known[i] = torch.tensor(mark.xy), torch.tensor(mark.seen).float(), True
            if mark.xyz is not None and solid is not None:
                points[i] = solid.inside(torch.tensor([mark.xyz]))[0].cpu()
        spots = gaussian(xy.to(self.device), self.side, self.side, self.config.spot * self.side)
        inside = ((xy > 0) & (xy < 1)).all(-1)
        return Marked(number, spots, (seen * inside).to(self.device), points.to(self.device), known.to(self.device))

    def _framed(self, helpers: int) -> Frame:
        """The common shape, from the reference object or from tokens that are known."""
        angles = self.settled.constellation.angles
        points, known = [one.points for one in self.marked], [one.known for one in self.marked]
        solids = [self._solid(one.number) for one in self.marked]
        relative, there = turns_of_marks(points, known, self.reference, angles), solids[self.reference]
        if self.known is None:
            form, turn = there.form(0), relative
        else:
            form, turn = self.known.form, common_turns(relative, self._fits(self.known))
        self.turns = turn.tolist()
        places = mean_places(solids, points, known, turn, form, angles)
        if self.known is not None:
            return Frame(form, torch.cat([places, self.known.places]))
        own = points[self.reference][known[self.reference]]
        return Frame(form, torch.cat([places, far_points(there.hull.turned[0], own, helpers)]))

    @torch.no_grad()
    def _fits(self, known: Known) -> Float[Tensor, "object angle"]:
        """How well each marked object fits the known places in each turn, nats a token."""
        shape, found = self.settled.constellation, []
        for one in self.marked:
            hull = self._solid(one.number).hull
            evidence = self._evidence(hull, self._heatmaps(one.number, known.rows, self.settled.temperature))
            found.append(turn_scores(evidence, hull.turned, known.places, shape.wide, shape.absent))
        return torch.stack(found)

    def _heatmaps(self, number: int, rows: Tensor, temperature: float) -> Float[Tensor, "one view token side side"]:
        """Of one unwarped draw of noise of an object."""
        recording = self.recordings[number]
        draws = recording.config.prepare.versions // (1 + recording.config.prepare.warps)
        item = int(torch.randint(draws, (1,), generator=self.generator))
        layers = recording.queries["grid"].maps(rows, slice(item, item + 1), self.settled.maps)
        return token_heatmaps(layers, self.layout, self.settled.maps, self.side, temperature)

    def _evidence(self, hull: Hull, heatmaps: Tensor) -> Float[Tensor, "token point"]:
        heat = relative_heat(heatmaps, hull.xy)
        return self.settled.constellation.trust * heat_evidence(heat).mean(0).sum(0)

    def _shares(self, solid: Solid, heatmaps: Tensor, turn: int | None) -> Float[Tensor, "token point"]:
        """The chance of each of a hull's points to be each token's; in the best turn, or in one that is known."""
        if self.frame is None:
            raise ValueError("there is no common shape")
        shape, hull = self.settled.constellation, solid.hull
        evidence = self._evidence(hull, heatmaps.detach())
        if turn is None:
            turn = int(turn_scores(evidence, hull.turned, self.frame.places, shape.wide, shape.absent).argmax())
        places = self.frame.places
        if shape.stretch:
            places = stretched(places, self.frame.form, solid.form(turn))
        return placed(evidence, hull.turned[turn], places, shape.near)

    def run(self, report: Callable[[int, int], None]) -> Fitted:
        """All steps, reported as ``report(done, total)``; the tokens that they end with.

        Raises:
            InputError: the loss is not finite.
        """
        config, end = self.config, self.settled.temperature
        more = config.steps if len(self.marked) > 1 or (self.frame is not None and self.others) else 0
        total = config.planting + more
        for steps, first in ((config.planting, True), (more, False)):
            optimizer, seen = torch.optim.Adam([self.rows], lr=config.rate), []
            for step in range(steps):
                warmth = max(0.0, 1 - step / (0.7 * steps)) if first else 0.0
                for group in optimizer.param_groups:
                    group["lr"] = config.rate * (1 - 0.9 * step / steps)
                optimizer.zero_grad()
                loss = self._planting(end * (WARM / end) ** warmth, first)
                if not first:
                    loss = loss + self._spread(end)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                seen.append({"total": loss.detach()})
                report(step + 1 + (0 if first else config.planting), total)
            told(seen, 0, steps)
        rows = self.rows.detach()
        return Fitted(rows[: self.names], rows[self.names :], self.frame)

    def _picked(self, pool: Sequence[int]) -> list[int]:
        """At most a batch of these, drawn at random."""
        if len(pool) <= self.config.batch:
            return list(pool)
        order = torch.randperm(len(pool), generator=self.generator)[: self.config.batch]
        return [pool[i] for i in order.tolist()]

    def _planting(self, temperature: float, first: bool) -> Float[Tensor, ""]:
        """How unlikely the marks are on marked objects, and the helpers where they were put, nats a token."""
        loss, picked = self.rows.new_zeros(()), self._picked(range(len(self.marked)))
        for i in picked:
            one = self.marked[i]
            heatmaps = self._heatmaps(one.number, torch.cat([self.rows, self.fixed]), temperature)
            loss = loss + _missed(one, heatmaps[0, :, : self.names]) * self.names / len(self.rows)
            helpers = slice(self.names, len(self.rows))
            if self.frame is None or len(self.rows) == self.names or (first and i != self.reference):
                continue
            solid = self._solid(one.number)
            if i == self.reference:
                points = solid.hull.turned[self.turns[i]]
                share = placed(points.new_zeros(len(self.frame.places), len(points)), points, self.frame.places, SPOT)
            else:
                share = self._shares(solid, heatmaps, self.turns[i])
            loss = loss + self._off(solid, heatmaps, share, helpers) * (1 - self.names / len(self.rows))
        return loss / len(picked)

    def _spread(self, temperature: float) -> Float[Tensor, ""]:
        """How unlikely all tokens are where they are placed on objects without marks; as much as one marked object."""
        picked, loss = self._picked(self.others) if self.frame is not None else [], self.rows.new_zeros(())
        for number in picked:
            solid = self._solid(number)
            heatmaps = self._heatmaps(number, torch.cat([self.rows, self.fixed]), temperature)
            share = self._shares(solid, heatmaps, None)
            loss = loss + self._off(solid, heatmaps, share, slice(0, len(self.rows)))
        return loss / max(1, len(picked) * len(self.marked))

    def _off(self, solid: Solid, heatmaps: Tensor, share: Tensor, which: slice) -> Float[Tensor, ""]:
        heat = relative_heat(heatmaps[:, :, which], solid.hull.xy)
        return misplaced([solid.hull], share[None, which], heat[None])["total"]


def _missed(one: Marked, heatmaps: Float[Tensor, "view name side side"]) -> Float[Tensor, ""]:
    """Cross-entropy of the heatmaps to the marks' spots, over the views that see them, against flat maps; nats."""
    heat = heatmaps * heatmaps[0, 0].numel()
    each = -(one.spots * (heat + _NO_HEAT).log()).sum((-2, -1))
    total: Tensor = (each * one.seen).sum() / one.seen.sum().clamp_min(1)
    return total
