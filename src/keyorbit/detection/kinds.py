"""Keypoints of objects of which it is not said what they are: tokens of several kinds read each of them.

Tokens of any kind have peaks on any object, and a confidence says whether they know it
(:mod:`keyorbit.detection.confidence`). The kind is that of the tokens which know the object best. The model sees an
object once, whatever the number of kinds.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.found import Detection
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.recording import Recording
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError


class KindDetector(KeypointDetector):
    """Reads the tokens of several kinds of objects, and returns what those found that know the object best.

    In all else it is the detector of the first kind.

    Args:
        backend: the model.
        tokens: by their kinds, two or more, all recorded alike and with statistics.
        config: the settings. Default None: :class:`DetectConfig` as it is.
        force: use tokens of other weights knowingly, with a warning in the log. Default False.

    Raises:
        InputError: they are not recorded alike, or as :class:`KeypointDetector`.
    """

    def __init__(
        self, backend: Backend, tokens: Mapping[str, Tokens], config: DetectConfig | None = None, force: bool = False
    ) -> None:
        first, *_ = tokens.values()
        super().__init__(backend, first, config, force)
        self.kinds = {kind: KeypointDetector(backend, some, config, force) for kind, some in tokens.items()}
        for kind, one in self.kinds.items():
            if one.recording != self.recording or one.context is not None:
                raise InputError(
                    f"the tokens of kind {kind} read the model in another way: detect with one kind's alone"
                )

    @property
    def fingerprint(self) -> str:
        """Of the tokens of all kinds."""
        return sha256(" ".join(one.fingerprint for one in self.kinds.values()).encode()).hexdigest()[:16]

    def read(self, recording: Recording) -> Detection:
        """What the tokens found that know the object best, with what each kind's say of it in ``kinds``.

        Where none is surer than another, it is the first kind.

        Raises:
            InputError: it is not known how far to trust them, or as :meth:`KeypointDetector.read`.
        """
        found = {kind: one.read(recording) for kind, one in self.kinds.items()}
        known = [(kind, one.confidence.known) for kind, one in found.items() if one.confidence is not None]
        if len(known) < len(found):
            raise InputError(
                f"the kind of {recording.thing.name} cannot be told by confidence, which takes a model of several "
                "views: say which kind it is (--kind)"
            )
        known.sort(key=lambda one: -one[1])
        return replace(found[known[0][0]], kinds=tuple(known))
