"""Discovery by a common constellation: tokens planted on one object, then placed on all others and fitted to it there.

Expectation maximisation (Dempster et al. 1977). One object lends its surface: points far apart, a token fitted to each
from its views. Then, at every step: of each object of a batch the turn is found in which most tokens are where they
belong, every token is placed where its own evidence and its place in the constellation say, and the tokens are moved to
mark that place in the views that see it. Uses no labels. Assumes that objects stand upright:
only the turn about the vertical is unknown.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.draws import first_shuffled
from keyorbit.discovery.needs import KEPT, points_of
from keyorbit.discovery.planting import SPOT, WARM, Hull, misplaced
from keyorbit.discovery.run import DiscoveryRun, told
from keyorbit.discovery.selection import Selection, furthest_point_sampling, usual_candidates
from keyorbit.discovery.source import Source
from keyorbit.geometry.alignment import Form, form_of, middle_and_stray, symmetric_pairs, transport
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.constellation import gathered, placed, turn_scores, turned, turns
from keyorbit.geometry.evidence import heat_evidence, relative_heat
from keyorbit.geometry.hull import SURFACE_SPACING, HullGrid, in_sight, search_volume, surface_points
from keyorbit.geometry.warps import Warp
from keyorbit.ranks import Ranks

log = logging.getLogger(__name__)

# Objects that choose among those that tokens were planted on.
_JURY = 16


@dataclass(frozen=True, eq=False)
class Stretch:
    """How places on the common shape go along with one object's form, under each of the angles that are tried.

    out: from the common shape to the object, about the middles; back: its inverse; middle: of the object's surface.
    """

    out: Float[Tensor, "angle 3 3"]
    back: Float[Tensor, "angle 3 3"]
    middle: Float[Tensor, "angle 1 3"]


@dataclass(frozen=True, eq=False)
class Placing:
    """Where tokens are placed on objects.

    fit: log-likelihood of an object's best turn, nats a token; where: mean place in the constellation's frame, and on
    an object of its form; evidence: of the views there, nats a view.
    """

    fit: Float[Tensor, " object"]
    where: Float[Tensor, "object token 3"]
    evidence: Float[Tensor, "object token"]


class ConstellationRun(DiscoveryRun):
    """The state of a discovery by constellation: also where each token belongs, about the middle, in radii.

    form: of the object that tokens were planted on.
    """

    def __init__(self, source: Source, config: SettledConfig, ranks: Ranks, cameras: Cameras) -> None:
        super().__init__(source, config, ranks)
        self.rig = cameras.to(source.device)
        self.middle, self.radius = search_volume(self.rig)
        self.places = torch.zeros(len(self.tokens), 3, device=source.device)
        self.settings, self.grid = config.constellation, HullGrid.of(self.rig)
        self.hulls: dict[int, Hull] = {}
        self._take_form(form_of(self.places))

    def temperature_at(self, number: int) -> float:
        """Always the last one: planting has begun with a warm one."""
        return self.config.temperature

    def begin(self, progress: Callable[[int, int], None]) -> None:
        """Plant tokens on some objects, and keep those that fit the others best."""
        generator = torch.Generator().manual_seed(self.config.seed)
        order = first_shuffled(len(self.source), max(self.config.exemplars, _JURY + 1), generator)
        start = self.tokens.embedding.detach().clone()
        exemplars, steps, planted = order[: self.config.exemplars], self.config.planting, []
        for count, number in enumerate(exemplars):
            self.tokens.embedding.data.copy_(start)
            for step in self._plant(number):
                progress(count * steps + step, len(exemplars) * steps)
            jury = [other for other in order if other != number][:_JURY] or [number]
            score = float(self._place_all(jury).fit.mean())
            log.info("planted on object %d: fits the others with %.2f nats a token", number, score)
            planted.append((score, {name: value.detach().clone() for name, value in self.state().items()}))
        _, best = max(planted, key=lambda one: one[0])
        self.load_state(best)

    def _plant(self, number: int) -> Iterator[int]:
        """Fit the tokens to points of one object's surface that lie far apart; yields the steps done."""
        hull = self._hull(number)
        points = hull.turned[0]
        self._take_form(form_of(points))
        self.places = points[furthest_point_sampling(points[None], len(self.tokens))]
        share = placed(points.new_zeros(len(self.places), len(points)), points, self.places, SPOT)[None]

        def terms(maps: Tensor) -> dict[str, Tensor]:
            return misplaced([hull], share, self._heat([hull], maps))

        optimizer = torch.optim.Adam([self.tokens.embedding], lr=self.config.rate)
        steps, end = self.config.planting, self.config.temperature
        seen = []
        for step in range(steps):
            warmth = max(0.0, 1 - step / (0.7 * steps))
            temperature = end * (WARM / end) ** warmth
            seen.append(self.descend([number], temperature, terms, optimizer, step / steps))
            yield step + 1
        told(seen, 0, steps)

    def terms(self, objects: Sequence[int], maps: Tensor) -> dict[str, Float[Tensor, ""]]:
        """How unlikely the places are that the tokens are given, in nats; and how sure these are."""
        hulls = [self._hull(number) for number in objects]
        heat = self._heat(hulls, maps)
        share, placing = self._place(objects, heat.detach())
        terms = misplaced(hulls, share, heat)
        return terms | {"unfit": -placing.fit.mean(), "evidence": placing.evidence.mean()}

    def _heat(self, hulls: Sequence[Hull], maps: Tensor) -> Float[Tensor, "object version view token point"]:
        return relative_heat(self.heatmaps(maps), torch.stack([hull.xy for hull in hulls]))

    def _place(
        self, objects: Sequence[int], heat: Float[Tensor, "object version view token point"]
    ) -> tuple[Float[Tensor, "object token point"], Placing]:
        """The chance of each of a hull's points to be each token's, and what follows from it."""
        evidence = self.settings.trust * heat_evidence(heat).mean(1).sum(1)
        under = torch.stack([self._hull(number).turned for number in objects])
        scores = turn_scores(evidence, under, self.places, self.settings.wide, self.settings.absent)
        best, places = scores.max(-1), self.places
        points = gathered(under, best.indices)
        if self.settings.stretch:
            stretches = [self._stretch(number) for number in objects]
            out, back, middle = (
                gathered(torch.stack([getattr(one, name) for one in stretches]), best.indices)
                for name in ("out", "back", "middle")
            )
            places = (self.places - self.form.middle) @ out + middle
        share = placed(evidence, points, places, self.settings.near)
        where = einsum(share, points, "o t p, o p c -> o t c")
        if self.settings.stretch:
            where = (where - middle) @ back + self.form.middle
        evident = (share * evidence).sum(-1) / (self.settings.trust * heat.shape[2])
        return share, Placing(best.values, where, evident)

    @torch.no_grad()
    def _place_all(self, numbers: Sequence[int]) -> Placing:
        """The same for many objects, a batch at a time."""
        found = []
        for batch in self.batches(numbers):
            maps = self.maps(batch, self.everywhere(len(batch)), self.config.temperature)
            hulls = [self._hull(n) for n in batch]
            found.append(self._place(batch, self._heat(hulls, maps))[1])
        return Placing(*(torch.cat([getattr(some, field.name) for some in found]) for field in fields(Placing)))

    def _hull(self, number: int) -> Hull:
        if number in self.hulls:
            return self.hulls[number]
        warps, _, distances = self.outlines([number])
        draw = torch.Generator().manual_seed(number)
        surface = surface_points(distances[0], self.rig, draw, self.grid)
        count = points_of(len(self.tokens))
        points = surface[torch.randint(len(surface), (count,), generator=draw).to(surface.device)]
        about = (points - self.middle.to(points)) / self.radius
        xy = Warp(warps[0]).apply(self.rig.project(points).expand(len(warps[0]), -1, -1, -1))
        seen = in_sight(points, surface, self.rig, SURFACE_SPACING) & ((xy > 0) & (xy < 1)).all(-1)
        hull = Hull(turned(about, turns(self.settings.angles).to(points)), xy, seen)
        if len(self.hulls) < KEPT:
            self.hulls[number] = hull
        return hull

    def _take_form(self, form: Form) -> None:
        """The form of the object that tokens are planted on, from which the others' are stretched."""
        self.form = form
        self.stretches: dict[int, Stretch] = {}

    def _stretch(self, number: int) -> Stretch:
        """Computed once, for all angles: a root of a matrix is found on the CPU, for which a GPU would have to stop."""
        if number in self.stretches:
            return self.stretches[number]
        own = form_of(self._hull(number).turned)
        out, back = (way.to(own.middle) for way in (transport(self.form, own), transport(own, self.form)))
        stretch = Stretch(out, back, own.middle[:, None])
        if len(self.stretches) < KEPT:
            self.stretches[number] = stretch
        return stretch

    def learnt(self) -> dict[str, Tensor]:
        return {"places": self.places, "form": self.form.rows}

    def load_learnt(self, tensors: Mapping[str, Tensor]) -> None:
        self.places = tensors["places"].to(self.places)
        self._take_form(Form.from_rows(tensors["form"].to(self.places)))

    @torch.no_grad()
    def select(self) -> Selection:
        """Tokens with evidence on the objects, far apart in the constellation."""
        placing = self._place_all(self.judges())
        places, stray = middle_and_stray(placing.where)
        evidence, count = placing.evidence.mean(0), self.config.num_tokens
        pool = evidence.argsort(descending=True, stable=True)[: usual_candidates(count)]
        picks = furthest_point_sampling(places[None], count, pool)
        pairs = tuple(symmetric_pairs(places[picks], stray[picks]))
        return Selection(picks, evidence=evidence, stray=stray, pairs=pairs, places=places, form=self.form)
