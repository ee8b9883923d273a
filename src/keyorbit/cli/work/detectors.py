"""From options to a detector, here or in a process elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keyorbit.cli.work.loading import ModelChoice
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.kinds import KindDetector
from keyorbit.diffusion.tokens import Tokens


@dataclass(frozen=True, eq=False)
class DetectorChoice:
    """What a detector is made of. It can be pickled: no model is loaded.

    Attributes:
        tokens: a run's, or those of each kind that is looked for; None: those of the phrases.
        phrases: keypoints in words.
        model: that it reads.
        config: how keypoints are detected.
        force: whether the tokens may be of other weights.
    """

    tokens: Tokens | Mapping[str, Tokens] | None
    phrases: Sequence[str]
    model: ModelChoice
    config: DetectConfig
    force: bool

    def load(self, device: str) -> KeypointDetector:
        """Load it.

        Args:
            device: that was found usable: :func:`keyorbit.cli.work.loading.use_device`.

        Raises:
            InputError: it does not load, or the tokens are not of this model.
        """
        given = self.tokens
        if given is None:
            backend = self.model.load_for(None, device)
            return KeypointDetector(backend, Tokens.from_phrases(backend, self.phrases), self.config, self.force)
        kinds = {"": given} if isinstance(given, Tokens) else dict(given)
        tokens = next(iter(kinds.values()))
        backend = self.model.load_for(tokens, device)
        if isinstance(given, Tokens):
            return KeypointDetector(backend, tokens, self.config, self.force)
        return KindDetector(backend, kinds, self.config, self.force)
