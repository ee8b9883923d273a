"""Ranges of the numbers that discovery, training and their options share. It imports no library but the checks."""

from typing import Annotated

from msgspec import Meta

# Of these numbers float32, in which is computed, holds what follows from them. A weight of 0 leaves a term out.
Weight = Annotated[float, Meta(ge=0, le=10**9)]
Rate = Annotated[float, Meta(ge=0, le=1000)]
Temperature = Annotated[float, Meta(ge=1e-12, le=10**12)]
# Pixels; 0 stands for twice the latent's side.
MapSide = Annotated[int, Meta(ge=0, le=8192)]
