"""What can be asked of rendered objects. It imports no library but the checks: the command line reads it."""

from typing import Annotated

from msgspec import Meta

from keyorbit.values import Amount, Count

MAX_OBJECTS = 10**6
Objects = Annotated[int, Meta(ge=1, le=MAX_OBJECTS)]
# Seeds in this range give objects' seeds below 10⁹.
ObjectSeed = Annotated[int, Meta(ge=0, le=999)]
# Of a view, pixels.
Side = Annotated[int, Meta(ge=8, le=16384)]
# At which turns do not become one another by rounding.
Degrees = Annotated[float, Meta(ge=-(10**6), le=10**6)]
# Of the input view: straight from above or below there is no upward direction.
Elevation = Annotated[float, Meta(ge=-89, le=89)]
# Which of how many machines.
Shard = tuple[Amount, Count]
Workers = Annotated[int, Meta(ge=1, le=1024)]
# The file's upward axis; auto: what the file or its format tells, else judged by its shape.
AUTO_UP = "auto"
# Pixels a side of a mesh's views, unless others are asked for.
MESH_SIDE = 320
UPS = (AUTO_UP, "x", "y", "z", "-x", "-y", "-z")
