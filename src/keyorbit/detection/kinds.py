"""Keypoints of objects of which it is not said what they are: tokens of several kinds read each of them.

Tokens of any kind have peaks on any object, and a confidence says whether they know it
(:mod:`keyorbit.detection.confidence`). The kind is that of the tokens which know the object best. The model sees an
object once, whatever the number of kinds.

A confidence was fitted where half of the objects are of the tokens' kind. The surest of four is sure more often than
one alone, also of an object of no kind. So the probabilities are put together by Bayes' theorem: the kinds exclude one
another, all together are as likely before as none of them, and each as likely as another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from sys import float_info

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
        alone = [one.confidence.known for one in found.values() if one.confidence is not None]
        if len(alone) < len(found):
            raise InputError(
                f"the kind of {recording.thing.name} cannot be told by confidence, which takes a model of several "
                "views: say which kind it is (--kind)"
            )
        kinds = sorted(zip(found, together(alone), strict=True), key=lambda one: -one[1])
        best, known = kinds[0]
        trust = found[best].confidence
        assert trust is not None
        share = known / trust.known if trust.known else 1.0
        trust = replace(trust, known=known, keypoints=trust.keypoints * share)
        return replace(found[best], confidence=trust, kinds=tuple(kinds))


def together(alone: Sequence[float]) -> list[float]:
    """Compute how likely each of some kinds is, of probabilities that each one's tokens know an object.

    With odds o of each of n kinds alone, where half of the objects are of it, they are o / n of 1 + the sum of all o /
    n: Bayes' theorem, if half of the objects are of one of the kinds, each as often as another.

    Args:
        alone: of each kind, 0…1.

    Returns:
        As many, which sum to 1 less the probability that the object is of none of the kinds.
    """
    sure = 1 - float_info.epsilon
    odds = [min(one, sure) / (1 - min(one, sure)) / len(alone) for one in alone]
    return [one / (1 + sum(odds)) for one in odds]
