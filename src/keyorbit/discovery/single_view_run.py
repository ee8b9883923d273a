"""Discovery on single views, as StableKeypoints has it: sharp maps that move with their picture."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.discovery.objective import Observed, single_view_objective
from keyorbit.discovery.run import DiscoveryRun
from keyorbit.discovery.selection import Selection
from keyorbit.geometry.heatmaps import argmax_xy, with_peak_one


class SingleViewRun(DiscoveryRun):
    """Minimises :func:`keyorbit.discovery.objective.single_view_objective`."""

    def begin(self, progress: Callable[[int, int], None]) -> None:
        """Nothing."""

    def temperature_at(self, number: int) -> float:
        """Falls from the warm one to the last."""
        return self.config.temperature_at(number)

    def terms(self, objects: Sequence[int], maps: Tensor) -> dict[str, Float[Tensor, ""]]:
        seen = self.observe(objects, maps)
        maps = with_peak_one(maps) if self.kind == "logits" else maps
        return single_view_objective(maps, seen.warps, self.config.single_view, self.config.num_tokens)

    @torch.no_grad()
    def select(self) -> Selection:
        """Sharp tokens far apart in the pictures."""
        return self.ranked(_peaks, beside=False)

    def learnt(self) -> dict[str, Tensor]:
        return {}

    def load_learnt(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""


def _peaks(seen: Observed) -> tuple[Float[Tensor, "object token 2"], Float[Tensor, "object token"]]:
    """Where the tokens are in the first view; nothing has to agree with it."""
    peaks = argmax_xy(seen.heatmaps[:, 0, 0])
    return peaks, torch.zeros_like(peaks[..., 0])
