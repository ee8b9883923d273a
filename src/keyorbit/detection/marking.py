"""Tokens from marks: points marked on one object, or a few, become keypoints that are found on all others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector, found_with
from keyorbit.detection.marked_tokens import (
    first_rows,
    known_of,
    tokens_alone,
    tokens_beside,
    tokens_helped,
    with_strays,
)
from keyorbit.diffusion.backends.base import Backend, check_backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.recording import Recording, check_recordings
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig, SettledConfig, map_side
from keyorbit.discovery.discover import Report
from keyorbit.discovery.initial import tokens_info
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.discovery.marks_fit import MarksFit
from keyorbit.discovery.marks_frame import far_points
from keyorbit.discovery.placing import PlacedMark, place_marks
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.hull import surface_points
from keyorbit.objects.dataset import Objects
from keyorbit.objects.given import check_given
from keyorbit.objects.marks import Mark, check_marks, marks_of, names_of
from keyorbit.values import check_kind

# Points of an object's hull that find the camera of its input picture.
_POINTS = 16


@dataclass(frozen=True, eq=False)
class Marked:
    """What marks became.

    Attributes:
        tokens: named by the marks, in the order in which these were first mentioned.
        placed: where each mark is on its object.
    """

    tokens: Tokens
    placed: tuple[PlacedMark, ...]


def mark(
    backend: Backend,
    objects: Objects,
    marks: Sequence[Mark],
    config: MarkConfig | None = None,
    base: Tokens | None = None,
    keep: bool = False,
    report: Report | None = None,
) -> Marked:
    """Make tokens of points that are marked on some of the objects.

    Args:
        backend: the model.
        objects: those with marks, and any others of their kind. Those without marks help: they show what varies.
        marks: one point or several, see :class:`Mark`. Of a model that generates the views, they are the views that
            detection with the same seed generates.
        config: the settings. Default None: :class:`MarkConfig` as it is.
        base: tokens of a run on the same model, which help to find how objects are turned in place of helpers of their
            own. Default None.
        keep: whether the keypoints of ``base`` stay keypoints. A mark of a keypoint's name (such as ``keypoint_03``
            where it has none of its own) then replaces it, and others follow behind. Default False.
        report: called as ``report(stage, done, total, values)`` for the stages record and fit.

    Raises:
        InputError: there is no mark; one is of an unknown object, outside its picture or beside the object; names are
            equal; clicks in several views are not one point; ``base`` is of another model, or of a mode in which the
            UNet runs at every step; or an object does not fit the model.
    """
    check_backend(backend)
    check_given(objects)
    config, report = _checked(config, base), report or _silent
    check_marks(marks)
    by_object, names = marks_of(marks, [thing.name for thing in objects]), names_of(marks)
    tokens = _start(backend, names, config, base)
    # Marks are on views. Where the input picture misleads the model about these, one object's marks would mislead all:
    # so that all draws of noise but one are without it.
    alone = DetectConfig(noises=config.noises, seed=config.seed, blind=config.noises - 1)
    first, rest = KeypointDetector(backend, tokens, alone), KeypointDetector(backend, tokens, replace(alone, blind=0))
    check_recordings(backend, rest.recording, 1, len(objects))
    # The marked ones first: a mark that is wrong is told before the others are read.
    others = [number for number in range(len(objects)) if number not in by_object]
    each = chain(first.record_each(objects[i] for i in by_object), rest.record_each(objects[i] for i in others))
    recordings, placed = list[Recording](), list[PlacedMark]()
    for number, recording in zip([*by_object, *others], each, strict=True):
        recordings.append(recording)
        if number in by_object:
            placed += _placed(backend, recording, by_object[number], config, base)
        report("record", len(recordings), len(objects), {})
    return _fitted(backend, recordings, placed, names, config, base, keep, report)


def fit_marks(
    backend: Backend,
    recordings: Sequence[Recording],
    marks: Sequence[Mark],
    config: MarkConfig | None = None,
    base: Tokens | None = None,
    keep: bool = False,
    report: Report | None = None,
) -> Marked:
    """The same from recordings of a detector's :meth:`KeypointDetector.record`, at the same layers and timestep.

    Those that the settings leave open are the recordings'. Marked objects are best recorded without the input picture
    in most draws of noise (``blind`` of :class:`keyorbit.DetectConfig`), as :func:`mark` does.

    Raises:
        InputError: as :func:`mark`, or a recording is of another model or of other settings.
    """
    check_backend(backend)
    config, report = _checked(config, base), report or _silent
    check_marks(marks)
    by_object = marks_of(marks, [recording.thing.name for recording in recordings])
    names, how = names_of(marks), recordings[0].config
    config = replace(
        config,
        layers=config.layers or how.layers,
        maps=config.maps or how.maps,
        timestep=how.prepare.timestep if config.timestep is None else config.timestep,
    )
    settled = _settled(backend, names, config, base)
    for recording in recordings:
        _check_recording(recording, backend, settled)
    placed = [
        one for number, some in by_object.items() for one in _placed(backend, recordings[number], some, config, base)
    ]
    return _fitted(backend, recordings, placed, names, config, base, keep, report)


def _fitted(
    backend: Backend,
    recordings: Sequence[Recording],
    placed: Sequence[PlacedMark],
    names: Sequence[str],
    config: MarkConfig,
    base: Tokens | None,
    keep: bool,
    report: Report,
) -> Marked:
    """The tokens of marks that are placed."""
    settled, marked = _settled(backend, names, config, base), dict[int, list[PlacedMark]]()
    numbers = {recording.thing.name: number for number, recording in enumerate(recordings)}
    for one in placed:
        marked.setdefault(numbers[one.object], []).append(one)
    start, known = first_rows(backend, names, config, base).to(backend.device), known_of(base, backend.device)
    side = map_side(backend, settled.map_size)
    fit = MarksFit(recordings, marked, names, start, known, config, settled, backend.layout, side)
    fitted = fit.run(lambda done, total: report("fit", done, total, {}))
    if base is not None and keep:
        tokens = tokens_beside(base, names, fitted)
    elif base is not None and fit.known is not None:
        tokens = tokens_helped(base, names, fitted)
    else:
        tokens = tokens_alone(tokens_info(backend, settled), names, fitted)
    tokens = Tokens(tokens.embedding, replace(tokens.info, objects=len(recordings)), tokens.helpers)
    others = [recording for number, recording in enumerate(recordings) if number not in marked]
    return Marked(with_strays(tokens, others, settled, backend), tuple(placed))


def _checked(config: MarkConfig | None, base: Tokens | None) -> MarkConfig:
    """The settings; those by default where there are none. Raises InputError where either is something else."""
    check_kind("config", config, MarkConfig | None, "a MarkConfig")
    check_kind("base", base, Tokens | None, "the Tokens of a run, such as Tokens.load reads")
    return config or MarkConfig()


def _silent(stage: str, done: int, total: int, values: dict[str, float]) -> None:
    """Reports nothing."""


def _start(backend: Backend, names: Sequence[str], config: MarkConfig, base: Tokens | None) -> Tokens:
    """Tokens that ask for the same recordings as those that will be fitted."""
    if base is not None:
        return base
    settled = _settled(backend, names, config, None)
    return Tokens(first_rows(backend, names, config, None), tokens_info(backend, settled))


def _settled(backend: Backend, names: Sequence[str], config: MarkConfig, base: Tokens | None) -> SettledConfig:
    """How the tokens are read: as a discovery's are, or as the run's."""
    if base is None:
        wanted = DiscoverConfig(
            num_tokens=len(names),
            num_candidates=len(names) + config.helpers,
            layers=config.layers,
            maps=config.maps,
            planting=config.planting,
            steps=config.steps,
            batch=config.batch,
            rate=config.rate,
            seed=config.seed,
            prepare=PrepareConfig(timestep=config.timestep, warps=0, noises=config.noises, seed=config.seed),
        )
        settled = wanted.settled(backend)
    else:
        settled = found_with(base.info).settled(backend)
    if settled.mode != "isolated" or settled.maps == "stablekeypoints" or settled.published:
        raise InputError(
            f"marks are fitted to recorded queries, not to tokens of mode {settled.mode} and maps {settled.maps}: take "
            "mode isolated and maps logits or attention"
        )
    return settled


def _check_recording(recording: Recording, backend: Backend, settled: SettledConfig) -> None:
    how, name = recording.config, recording.thing.name
    if recording.fingerprint != backend.fingerprint:
        raise InputError(f"{name} was recorded with another model: record it with this one")
    layers, own = (cross_attention_layers(backend.unet, some) for some in (how.layers, settled.layers))
    if (layers, how.maps, how.prepare.timesteps) != (own, settled.maps, settled.prepare.timesteps):
        raise InputError(f"{name} was recorded with other layers, maps or timesteps than the tokens': record it anew")


def _placed(
    backend: Backend, recording: Recording, marks: Sequence[Mark], config: MarkConfig, base: Tokens | None
) -> tuple[PlacedMark, ...]:
    cameras, picture = recording.cameras, None
    if cameras is not None and any(mark.xy is not None and mark.view is None for mark in marks):
        picture = _picture_camera(backend, recording, config, base)
    masks, generated = recording.shown.silhouette.mask, recording.thing.views is None
    return place_marks(marks, recording.thing.name, masks, cameras, picture, generated and cameras is not None)


def _picture_camera(backend: Backend, recording: Recording, config: MarkConfig, base: Tokens | None) -> Cameras | None:
    """The camera of the input picture, by a run's keypoints or by points of this object's hull."""
    name, cameras = recording.thing.name, recording.cameras
    if base is None and cameras is not None:
        surface = surface_points(recording.shown.silhouette.distance.cpu(), cameras.to("cpu"))
        points = far_points(surface, surface[:1], _POINTS).tolist()
        given = [Mark(f"point {i}", name, xyz=(x, y, z)) for i, (x, y, z) in enumerate(points)]
        base = fit_marks(backend, [recording], given, replace(config, helpers=0, steps=0)).tokens
    if base is None:
        return None
    shown, blind = recording.config.prepare, recording.config.blind
    reading = DetectConfig(noises=shown.noises, warps=shown.warps, seed=max(0, shown.seed), blind=blind)
    found = KeypointDetector(backend, base, reading).read(recording).input_camera
    return None if found is None or not float(found.score) > 0 else found.cameras
