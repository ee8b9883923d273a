"""From options to objects that are measured and the detectors that find keypoints on them, here or elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from keyorbit.cli.work.evaluation_parts import checked, own_part, published_part
from keyorbit.cli.work.loading import ModelChoice
from keyorbit.cli.work.several import without_views
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import config_from_settings
from keyorbit.discovery.initial import untrained
from keyorbit.evaluation.parts import Part
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.description import Symmetry
from keyorbit.objects.sources import ObjectSource


@dataclass(frozen=True)
class Measured:
    """The objects of an argument.

    Attributes:
        sources: object folders and pictures.
        meshes: paths of meshes.
        folder: of a published data set; None where there is none.
    """

    sources: Sequence[ObjectSource] = ()
    meshes: Sequence[Path] = ()
    folder: Path | None = None


@dataclass(frozen=True, eq=False)
class EvaluatorChoice:
    """What is measured, and by what. It can be pickled: no model is loaded, and no object read.

    Attributes:
        tokens: a run's.
        given: the objects by the names of their parts: objects, fit, moved.
        dataset: the layout of published data sets' folders, or keyorbit.
        split: of published data sets.
        limit: of each part, no more than so many; None: all.
        up: the upward axis of meshes' files.
        symmetry: of every object; None: as each says.
        generate: whether views are generated, in place of those that are there.
        baseline: whether untrained tokens are measured too.
        model: on which they are measured.
        force: whether the tokens may be of other weights.
    """

    tokens: Tokens
    given: Mapping[str, Measured]
    dataset: str
    split: str
    limit: int | None
    up: str
    symmetry: Symmetry | None
    generate: bool
    baseline: bool
    model: ModelChoice
    force: bool

    def load(self, device: str) -> tuple[dict[str, KeypointDetector], list[Part]]:
        """Load the detectors, by the names of their tokens, and look at the first object of each part.

        Args:
            device: that was found usable: :func:`keyorbit.cli.work.loading.use_device`.

        Raises:
            InputError: the model does not load, the tokens are not of this model, or the objects cannot be measured
                together.
        """
        # Meshes are rendered at its cameras; of other objects the first is read, and refused, before it is loaded.
        early = any(_may_be_rendered(one) for one in self.given.values())
        backend = self.model.load_for(self.tokens, device) if early else None
        parts = checked(self.parts(None if backend is None else backend.cameras))
        backend = backend or self.model.load_for(self.tokens, device)
        parts = [replace(part, read=partial(self._changed, part.read, part.name)) for part in parts]
        candidates = {"discovered": self.tokens}
        if self.baseline and self.tokens.info.settings:
            candidates["untrained"] = untrained(backend, config_from_settings(self.tokens.info.settings))
        return {name: KeypointDetector(backend, one, force=self.force) for name, one in candidates.items()}, parts

    def parts(self, cameras: Cameras | None) -> list[Part]:
        """The objects as they are; no object is read. Meshes are rendered at the cameras, by default Zero123++'s.

        Raises:
            InputError: there are none.
        """
        return [self._part(name, one, cameras) for name, one in self.given.items()]

    def _part(self, name: str, given: Measured, cameras: Cameras | None) -> Part:
        if given.folder is not None:
            split = "train" if name == "fit" else self.split
            return published_part(name, self.dataset, given.folder, split, self.limit)
        return own_part(name, given.sources, given.meshes, cameras, self.up, self.limit)

    def _changed(self, read: Callable[[int], ObjectViews], part: str, number: int) -> ObjectViews:
        thing = read(number)
        thing = thing if self.symmetry is None else replace(thing, symmetry=self.symmetry)
        return without_views(thing) if self.generate and part != "fit" else thing


def _may_be_rendered(given: Measured) -> bool:
    return bool(given.meshes) or any(source.elsewhere for source in given.sources)
