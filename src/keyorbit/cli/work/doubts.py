"""What to say where the tiny model made views of something that it does not know: it makes one of its kinds of all."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from keyorbit.detection.config import DetectConfig
from keyorbit.detection.kinds import KindDetector
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import SHIPPED_KINDS
from keyorbit.diffusion.paths import shipped_tokens
from keyorbit.diffusion.tokens import Tokens
from keyorbit.objects.dataset import ObjectViews, load_dataset


def doubts(
    things: Sequence[ObjectViews], folders: Sequence[Path], backend: Zero123PlusBackend
) -> list[tuple[str, str]]:
    """The names of objects whose views look like none of the kinds of which tokens ship, with the remedy.

    The tokens read each set of views in one pass of the UNet. Of other weights than theirs nothing is said.

    Args:
        things: as they were given, by their pictures.
        folders: of the views that were made of each.
        backend: the model that made them.

    Raises:
        InputError: the views cannot be read.
    """
    tokens = {kind: Tokens.load(shipped_tokens(kind)) for kind in SHIPPED_KINDS}
    if any(one.info.model_fingerprint != backend.fingerprint for one in tokens.values()):
        return []
    detector, said = KindDetector(backend, tokens, DetectConfig(noises=1)), list[tuple[str, str]]()
    for thing, folder in zip(things, folders, strict=True):
        recording = detector.record(load_dataset(folder)[0])
        # Views that were given are what they are; these are judged by the picture, too.
        trust = detector.read(replace(recording, thing=replace(thing, views=None))).confidence
        if trust is not None and trust.verdict == "unknown":
            kinds = f"{', '.join(SHIPPED_KINDS[:-1])} or {SHIPPED_KINDS[-1]}"
            said.append((thing.name, f"its views show no {kinds} ({trust.known:.0%}); {trust.model}"))
    return said
