"""Discovery on single views, as StableKeypoints has it: sharp maps that move with their picture."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit.discovery import published
from keyorbit.discovery.objective import chosen_in, single_view_objective
from keyorbit.discovery.run import DiscoveryRun
from keyorbit.discovery.selection import Selection, choose_tokens
from keyorbit.geometry.heatmaps import argmax_xy, gaussian_kl, with_peak_one

# Pictures that vote, where they are drawn and not given: StableKeypoints' num_indices.
VOTERS = 100


class SingleViewRun(DiscoveryRun):
    """Minimises :func:`keyorbit.discovery.objective.single_view_objective`."""

    def begin(self, progress: Callable[[int, int], None]) -> None:
        """Nothing."""

    def temperature_at(self, number: int) -> float:
        """Falls from the warm one to the last."""
        return self.config.temperature_at(number)

    def terms(self, objects: Sequence[int], maps: Tensor) -> dict[str, Float[Tensor, ""]]:
        config = self.config
        maps, warps = self._as_attention(maps), self.warps(objects)
        return single_view_objective(maps, warps, config.single_view, config.num_tokens, config.published)

    @torch.no_grad()
    def select(self) -> Selection:
        """Sharp tokens far apart in the pictures: those chosen in most of them, or those of the best mean rank."""
        return self._voted() if "votes" in self.config.published else self._ranked()

    def learnt(self) -> dict[str, Tensor]:
        return {}

    def load_learnt(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def _voted(self) -> Selection:
        config = self.config
        chosen = [
            chosen_in(view, view, config.single_view, config.num_tokens, config.published)
            for maps in self._unwarped()
            for view in rearrange(maps, "o v t h w -> (o v) t h w")
        ]
        return Selection(published.voted(chosen, config.num_tokens))

    def _ranked(self) -> Selection:
        weights = self.config.single_view
        sharpness, places = [], []
        for maps in self._unwarped():
            if "ranking" in self.config.published:
                each = published.ranking(maps, weights.sigma, weights.subjects)
            else:
                each = gaussian_kl(maps)
            sharpness.append(each.mean(1))
            places.append(argmax_xy(maps[:, 0]))
        points = torch.cat(places)
        return choose_tokens(torch.cat(sharpness), points, torch.zeros_like(points[..., 0]), self.config.num_tokens)

    def _unwarped(self) -> Iterator[Float[Tensor, "object view token side side"]]:
        """The maps of the objects, or of further draws of them, as they are: a batch at a time."""
        voters: Sequence[int] = self.judges()
        if "draws" in self.config.published:
            first = self.config.steps * self.config.batch
            voters = range(first, first + VOTERS)
        for batch in self.batches(voters):
            maps = self.maps(batch, self.everywhere(len(batch)), self.config.temperature)
            yield self._as_attention(maps)[:, 0]

    def _as_attention(self, maps: Tensor) -> Tensor:
        """The maps with a peak of at most 1, as attention has it."""
        return with_peak_one(maps) if self.kind == "logits" else maps
