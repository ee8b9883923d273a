"""What a detection was made with: what one needs to make it again."""

from dataclasses import asdict, dataclass
from typing import Any

from keyorbit.detection.config import DetectConfig


@dataclass(frozen=True)
class Provenance:
    """What a detection was made with.

    Attributes:
        version: of keyorbit.
        model: what it was loaded by: ``tiny``, a folder or a Hub id.
        model_fingerprint: of its weights.
        dtype: the type that it computed in.
        cameras_of: whose cameras it was loaded with, where they were not those that its folder tells of; else empty.
        layout: rows x columns of its views, such as ``3x2``.
        tokens: fingerprint of the tokens (:attr:`keyorbit.Tokens.fingerprint`).
        tokens_file: the file that they were read from; empty for none.
        settings: how keypoints were read.
        layers: names or patterns of the cross-attention layers that were read.
        maps: their kind, see :class:`keyorbit.DiscoverConfig`.
        timesteps: how much noise the model saw, 0…999.
    """

    version: str
    model: str
    model_fingerprint: str
    dtype: str
    cameras_of: str
    layout: str
    tokens: str
    tokens_file: str
    settings: DetectConfig
    layers: str | tuple[str, ...]
    maps: str
    timesteps: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return asdict(self)
