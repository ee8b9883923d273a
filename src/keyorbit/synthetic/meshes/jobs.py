"""Which meshes are to be rendered, and how they are seen."""

from dataclasses import dataclass
from pathlib import Path

from keyorbit.objects.sources import ObjectSource
from keyorbit.synthetic.choices import AUTO_UP, Degrees, Elevation, Side
from keyorbit.synthetic.meshes.landmarks import Landmarks
from keyorbit.values import check_fields


@dataclass(frozen=True)
class MeshView:
    """How meshes are seen.

    Attributes:
        size: pixels a side of a view. Default 64.
        elevation_deg: of the input view. Default 20.
        azimuth_deg: of the input view, about the mesh. Default 0.
    """

    size: Side = 64
    elevation_deg: Elevation = 20.0
    azimuth_deg: Degrees = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class MeshJob:
    """A mesh to render.

    Attributes:
        mesh: its file; of one that lies elsewhere, only its name.
        folder: the object folder to write.
        view: how it is seen.
        up: its upward axis, or ``auto``.
        landmarks: its landmarks. Default None: there are none.
        judged: whether ``up`` was judged by the shapes of several meshes. Default False: it was told.
        source: the shard or the address where it lies. Default None: it is a file on this disk.
    """

    mesh: Path
    folder: Path
    view: MeshView
    up: str = AUTO_UP
    landmarks: Landmarks | None = None
    judged: bool = False
    source: ObjectSource | None = None
