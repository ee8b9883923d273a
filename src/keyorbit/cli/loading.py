"""What commands load once their arguments are checked: objects, tokens and models; only commands at work import it."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
import transformers

from keyorbit.cli.sharing import shared
from keyorbit.cli.terminal import bars
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.kinds import KindDetector
from keyorbit.determinism import compute_deterministically
from keyorbit.devices import device_words, usable_device
from keyorbit.diffusion.backends.base import Backend, Precision
from keyorbit.diffusion.backends.fingerprint import older_fingerprint
from keyorbit.diffusion.backends.loading import (
    load_backend,
    load_backend_of,
    model_fingerprint,
    source_folder,
)
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import FROM_FOLDER, SHIPPED_KINDS, ViewChoice
from keyorbit.diffusion.paths import shipped_tokens, tokens_file
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.cache.disk import DiskCache
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.objects.background import Background
from keyorbit.objects.dataset import ObjectDataset, ObjectViews, load_dataset, object_in, read_source
from keyorbit.objects.emptiness import check_seen
from keyorbit.objects.shards.names import is_object, mesh_in
from keyorbit.objects.sources import ObjectSource, object_sources
from keyorbit.ranks import Ranks, first_launched, launched
from keyorbit.synthetic.choices import AUTO_UP, MESH_SIDE


@dataclass(frozen=True)
class Several:
    """Objects that are read one after the other.

    Attributes:
        sources: where they are.
        masks: of those that have one.
        background: what is done with it; see :class:`ObjectViews`.
        recentre: whether they are brought to the middle.
        batch: objects that go through the model together; None: what suits the device.
        strict: whether the first that cannot be used stops all.
        held: an object that was read already, the only one.
        meshes: what renders each of the last of them when it is its turn. Default: there are none.
        up: the upward axis of meshes' files, as it was given.
        cameras: of the model, for meshes in shards and at addresses. Default None: those of Zero123++ v1.2.
    """

    sources: Sequence[ObjectSource]
    masks: Mapping[Path, Path]
    background: Background
    recentre: bool
    batch: int | None
    strict: bool = False
    held: ObjectViews | None = None
    meshes: Sequence[Callable[[], ObjectViews]] = ()
    up: str = AUTO_UP
    cameras: Cameras | None = None

    @property
    def needed(self) -> tuple[Path, ...]:
        """The folder of the first of them, if it is on a disk: who reads them elsewhere has to see it, too."""
        folders = [Path(os.path.abspath(source.path)).parent for source in self.sources[:1]]
        return tuple(folder for folder in folders if folder.is_dir())

    def read(self, number: int) -> ObjectViews:
        """Read one of them. Raises InputError as :func:`read_source`, or because a mesh cannot be rendered."""
        return self.reader(number)()

    def reader(self, number: int) -> Callable[[], ObjectViews]:
        """What reads one of them, and can be pickled without the others: for a process elsewhere."""
        if self.held is not None:
            return partial(_same, self.held)
        source, first = self.sources[number], len(self.sources) - len(self.meshes)
        if number >= first:
            return partial(_rendered, self.meshes[number - first], self.recentre)
        if source.elsewhere:
            return partial(read_elsewhere, source, replace(self, sources=(), masks={}))
        return partial(read_source, source, self.background, self.masks.get(source.path), self.recentre)

    def share(self, numbers: Sequence[int], ranks: Ranks) -> Sequence[int]:
        """This process's share of some of them: every so-and-so-manyth; of what lies in shards, one run of them."""
        return shared(numbers, [self.sources[number].path for number in numbers], ranks)


def _same(thing: ObjectViews) -> ObjectViews:
    return thing


def _rendered(mesh: Callable[[], ObjectViews], recentre: bool) -> ObjectViews:
    return replace(mesh(), recentre=recentre)


def read_elsewhere(source: ObjectSource, how: Several) -> ObjectViews:
    """Read what lies in a shard or at an address; a mesh is rendered.

    ``how``: what is done with its background, and with a mesh.

    Raises:
        InputError: as :func:`keyorbit.objects.dataset.object_in`, or the mesh cannot be rendered.
    """
    files = source.files()
    if not is_object(files) and mesh_in(files) is not None:
        from keyorbit.synthetic.meshes.views import rendered

        thing = rendered(files, source.name, source.where, how.cameras, how.up, MESH_SIDE)
    else:
        thing = object_in(files, source.name, source.where)
    return replace(thing, background=how.background, recentre=how.recentre)


def use_device(name: str, deterministic: bool) -> str:
    """The device that the command works on, by ``--device`` and ``--deterministic``; before any other use of it."""
    if deterministic:
        compute_deterministically()
    return str(usable_device(name, launched()))


def show_model(backend: Backend) -> None:
    """Where the model is, and the type that it computes in."""
    show_place("model", backend.device, backend.precision)


def show_place(what: str, device: torch.device, precision: Precision | None = None) -> None:
    """Such as "model on cuda:0 (NVIDIA H100) in float16: …", unless it is the CPU in float32, which needs no word."""
    show_words(place_words(what, device, precision))


def place_words(what: str, device: torch.device, precision: Precision | None = None) -> str:
    """The same in words; empty where it needs none."""
    if (device.type, "float32" if precision is None else precision.dtype) == ("cpu", "float32"):
        return ""
    return f"{what} on {device_words(device)}" + ("" if precision is None else f" in {precision.words}")


def show_words(words: str) -> None:
    """A line by the first process, if there is something to say."""
    if words and first_launched():
        bars.print(words, markup=False, highlight=False, soft_wrap=True)


def load_all(
    path: Path, background: str | None = None, masks: Mapping[Path, Path] | None = None, recentre: bool = True
) -> list[ObjectViews]:
    """Every object read now, so that a damaged file is found before any work is done, and an empty picture too.

    They are as commands use them: a copy with other fields would be cut out of its picture once more.
    """
    read = load_dataset(path, cast(Background, background or "auto"), masks or {})
    found = [thing if recentre else replace(thing, recentre=False) for thing in read]
    for thing in found:
        check_seen(thing, str(path))
    return found


def given_objects(
    paths: Sequence[Path], background: str | None = None, masks: Mapping[Path, Path] | None = None
) -> ObjectDataset:
    """The objects at several paths, each read when it is its turn.

    Raises:
        InputError: there are none at one of them.
    """
    sources = object_sources(paths)
    return ObjectDataset(len(sources), partial(_read, sources, cast(Background, background or "auto"), masks or {}))


def _read(
    sources: Sequence[ObjectSource], background: Background, masks: Mapping[Path, Path], number: int
) -> ObjectViews:
    return read_source(sources[number], background, masks.get(sources[number].path))


def meshes_at(paths: Sequence[Path], cameras: Cameras | None, up: str) -> list[Callable[[], ObjectViews]]:
    """What renders each of the meshes at a model's cameras; without cameras, at Zero123++ v1.2's."""
    if not paths:
        return []
    from keyorbit.synthetic.meshes.views import mesh_readers

    return mesh_readers(paths, cameras, up, MESH_SIDE)


def true_meshes(paths: Sequence[Path], cameras: Cameras | None, up: str, limit: int | None) -> ObjectDataset:
    """The first meshes that have landmarks, rendered; where none has some, the first ones."""
    from keyorbit.synthetic.meshes.views import load_meshes

    return load_meshes(paths, cameras, up, MESH_SIDE, landmarked=True)[:limit]


def without_views(thing: ObjectViews) -> ObjectViews:
    """The object by its input picture alone: the model then generates the views."""
    return replace(thing, views=None, masks=None)


def load_tokens(run: Path) -> Tokens:
    """The tokens of a run's folder, or of a tokens file. Raises InputError as :meth:`Tokens.load`."""
    return Tokens.load(tokens_file(run))


def kinds_tokens() -> dict[str, Tokens]:
    """Those of all kinds that ship, for where no run is given; says so."""
    if first_launched():
        words = f"no run is given: the kind is looked for among {', '.join(SHIPPED_KINDS)}, whose tokens ship"
        bars.print(words, highlight=False, soft_wrap=True)
    return {kind: Tokens.load(shipped_tokens(kind)) for kind in SHIPPED_KINDS}


def load_model(
    model: str,
    device: str,
    dtype: str,
    unet: Path | None = None,
    views: ViewChoice = FROM_FOLDER,
    compile: bool = False,
    controlnet: str | None = None,
) -> Backend:
    """The model, loaded without the bars and the advice of its libraries.

    Raises:
        InputError: it does not load.
    """
    quiet_libraries()
    backend = load_backend(model, device, dtype, unet, controlnet, views.rig, compile, views.layout)
    show_model(backend)
    return backend


@dataclass(frozen=True)
class ModelChoice:
    """A model of several views, loaded here or in a process elsewhere.

    Attributes:
        name: of the model.
        device: where it runs.
        dtype: the type it computes in.
        unet: a file of other weights for its UNet.
        views: its layout and cameras.
        compile: whether views are generated by a compiled UNet.
        controlnet: a folder or Hub id; None: none.
        deterministic: whether the same bytes come out each time.
    """

    name: str
    device: str
    dtype: str
    unet: Path | None
    views: ViewChoice
    compile: bool
    controlnet: str | None
    deterministic: bool

    def load_zero123plus(self, device: str | None = None) -> Zero123PlusBackend:
        """Load it; ``device`` is one that was found usable, or None.

        Raises:
            InputError: it does not load, or is of a single view.
        """
        on = device or use_device(self.device, self.deterministic)
        backend = load_model(self.name, on, self.dtype, self.unet, self.views, self.compile, self.controlnet)
        if not isinstance(backend, Zero123PlusBackend):
            raise InputError(f"{self.name} is a model of a single view, which generates none: give a Zero123++ model")
        return backend


def run_backend(
    tokens: Tokens,
    model: str | None,
    device: str,
    dtype: str,
    unet: Path | None,
    views: ViewChoice,
    compile: bool = False,
) -> Backend:
    """The model asked for, else the one that the tokens were found on, and its layout and cameras likewise.

    Raises:
        InputError: it does not load.
    """
    quiet_libraries()
    backend = load_backend_of(tokens, model, device, dtype, unet, views, compile)
    show_model(backend)
    return backend


@dataclass(frozen=True, eq=False)
class DetectorChoice:
    """What a detector is made of. It can be pickled: no model is loaded.

    Attributes:
        tokens: a run's, or those of each kind that is looked for; None: those of the phrases.
        phrases: keypoints in words.
        model: its name; None: the tokens' own, or the tiny one.
        unet: a file of other weights for its UNet.
        views: its layout and cameras.
        compile: whether views are generated by a compiled UNet.
        device: where it runs.
        dtype: the type it computes in.
        deterministic: whether the same bytes come out each time.
        config: how keypoints are detected.
        force: whether the tokens may be of other weights.
    """

    tokens: Tokens | Mapping[str, Tokens] | None
    phrases: Sequence[str]
    model: str | None
    unet: Path | None
    views: ViewChoice
    compile: bool
    device: str
    dtype: str
    deterministic: bool
    config: DetectConfig
    force: bool

    def load(self, device: str) -> KeypointDetector:
        """Load it.

        Args:
            device: that was found usable: :func:`keyorbit.cli.loading.use_device`.

        Raises:
            InputError: it does not load, or the tokens are not of this model.
        """
        given = self.tokens
        if given is None:
            backend = load_model(self.model or "tiny", device, self.dtype, self.unet, self.views, self.compile)
            return KeypointDetector(backend, Tokens.from_phrases(backend, self.phrases), self.config, self.force)
        kinds = {"": given} if isinstance(given, Tokens) else dict(given)
        tokens = next(iter(kinds.values()))
        backend = run_backend(tokens, self.model, device, self.dtype, self.unet, self.views, self.compile)
        if isinstance(given, Tokens):
            return KeypointDetector(backend, tokens, self.config, self.force)
        return KindDetector(backend, kinds, self.config, self.force)


def made_with(detector: KeypointDetector) -> dict[str, Any]:
    """What of the tokens, the model and the settings results depend on, under the names that options have."""
    backend = detector.backend
    return {
        "tokens": detector.fingerprint,
        "model": backend.fingerprint,
        "rig": backend.cameras_of,
        "layout": backend.layout.text,
        **asdict(detector.config),
    }


def cache_of_model(cache: DiskCache, model: str | None) -> DiskCache:
    """The cache, if it was built with that model; without one, whatever it was built with.

    Raises:
        InputError: it was built with another one.
    """
    if model is None:
        return cache
    found, known = model_fingerprint(model), cache.facts.fingerprint
    if known not in (found, older_fingerprint(source_folder(model))):
        raise InputError(
            f"{cache.folder} was built with {cache.facts.name} ({known}), not with {model} "
            f"({found}): build it again, or leave --model out"
        )
    return cache


def quiet_libraries() -> None:
    """Bars and advice of the libraries below would drown ours."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()
