"""``keyorbit dataset render --engine ray``: workers render meshes and write their folders."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from keyorbit.cli.engine import Pool
from keyorbit.cli.work.on_ray import enter, in_goes
from keyorbit.cli.work.ray_cluster import ray_workers
from keyorbit.storage.files import folder_for
from keyorbit.synthetic.meshes.jobs import MeshJob
from keyorbit.synthetic.meshes.objects import Attempt, Rendered

Numbered = tuple[int, MeshJob]


@dataclass(frozen=True)
class _Rendering:
    """What workers are told once.

    Attributes:
        attempt: renders a mesh.
        folder: in which the command was called.
        needed: places that have to be there.
    """

    attempt: Attempt
    folder: Path
    needed: tuple[Path, ...]

    def begin(self) -> Callable[[Any], Any]:
        enter(self.folder, self.needed)
        return partial(_rendered, self.attempt)


def _rendered(attempt: Attempt, some: Sequence[Numbered]) -> list[tuple[int, Rendered]]:
    return [(number, attempt(job)) for number, job in some]


def render_on_ray(pool: Pool, out: Path, attempt: Attempt, jobs: Sequence[MeshJob]) -> Iterator[tuple[int, Rendered]]:
    """What becomes of meshes, each with its number among them, in the order in which they are finished.

    All nodes have to see the meshes and ``out``.

    Raises:
        InputError: as :func:`keyorbit.synthetic.meshes.objects.render_meshes`, or as
            :func:`keyorbit.cli.work.ray_cluster.ray_workers`.
    """
    here = [job.mesh.absolute() for job in jobs if job.source is None]
    with folder_for(out), ray_workers(pool) as workers:
        job = _Rendering(attempt, Path.cwd(), (*here[:1], out.absolute()))
        for some in workers.results(job, in_goes(list(enumerate(jobs)), workers.most, 1)):
            yield from some
