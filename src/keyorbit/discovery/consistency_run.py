"""Discovery by consistency: the views of each object have to agree on a point of space for each token."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.discovery.config import SettledConfig
from keyorbit.discovery.objective import Observed, objective
from keyorbit.discovery.run import DiscoveryRun
from keyorbit.discovery.selection import Selection
from keyorbit.discovery.source import Source
from keyorbit.geometry.cameras import Cameras, repeat_cameras
from keyorbit.geometry.triangulation import reprojection_error, triangulate
from keyorbit.ranks import Ranks


class ConsistencyRun(DiscoveryRun):
    """Minimises :func:`keyorbit.discovery.objective.objective`, in views of these cameras."""

    def __init__(self, source: Source, config: SettledConfig, ranks: Ranks, cameras: Cameras) -> None:
        super().__init__(source, config, ranks)
        self.cameras = cameras.to(source.device)

    def begin(self, progress: Callable[[int, int], None]) -> None:
        """Nothing."""

    def temperature_at(self, number: int) -> float:
        """Falls from the warm one to the last."""
        return self.config.temperature_at(number)

    def terms(self, objects: Sequence[int], maps: Tensor) -> dict[str, Float[Tensor, ""]]:
        return objective(self.observe(objects, maps), self.cameras, self.config.weights)

    @torch.no_grad()
    def select(self) -> Selection:
        """Sharp tokens whose views agree, on the objects, far apart on the mean object."""
        return self.ranked(self._locate)

    def learnt(self) -> dict[str, Tensor]:
        return {}

    def load_learnt(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def _locate(self, seen: Observed) -> tuple[Float[Tensor, "object token 3"], Float[Tensor, "object token"]]:
        """Where the tokens are in space, and how far their views disagree: mean reprojection error, sides."""
        places = seen.places()
        cameras = repeat_cameras(self.cameras, seen.heatmaps.shape[1])
        points = triangulate(places, cameras)
        return points, reprojection_error(points, places, cameras).mean(1)
