"""Training and test samples: a procedural object seen from the input view and from the model's six views."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image

from keyorbit.geometry.cameras import Cameras, orbit_cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import ObjectViews, Truth
from keyorbit.objects.pictures import GREY
from keyorbit.synthetic.objects import SyntheticObject, make_object
from keyorbit.synthetic.paint import COLORS, Part
from keyorbit.synthetic.render import composite, object_surface, random_light, render, sample_surface, visible
from keyorbit.synthetic.shapes import Shape, rotation_about

S = TypeVar("S")
T = TypeVar("T")
INPUT_ELEVATION_DEG = (-20.0, 60.0)
SURFACE_POINTS = 2048


@dataclass(frozen=True)
class SampleSpec:
    """Which sample to make.

    Attributes:
        category: one of :data:`~keyorbit.synthetic.objects.CATEGORIES`.
        seed: number of the object.
        size: pixels a side of a view. Default 64.
        turn_deg: degrees by which the cameras stand further round the object. Default 0. The lamp moves with the
            cameras.
    """

    category: str
    seed: int
    size: int = 64
    turn_deg: float = 0.0


@dataclass(frozen=True)
class Sample:
    """One object's pictures and ground truth.

    The world is rotated so that the input view has azimuth 0, as in Zero123++. Points and cameras are in that world.
    Pictures are RGBA; xy is in the unit square of a view. The axis ``all_views`` has the input view first.

    Attributes:
        category: of the object.
        seed: number of the object.
        input_image: picture of the input view.
        views: pictures of the six views.
        keypoints_3d: positions of the landmarks.
        known: False for a landmark that the object lacks.
        keypoints_2d: xy of the landmarks in every view.
        visible: True where a view sees the landmark.
        names: name of each landmark.
        pairs: left/right twins, by index.
        caption: one of ``captions``.
        captions: descriptions with more and more detail.
        background: colour behind the input picture, 0…1.
        input_azimuth_deg: azimuth of the input view about the object's own front.
        input_elevation_deg: elevation of the input view.
        input_camera: camera of the input view.
        cameras: cameras of the six views.
        surface: points distributed uniformly over the surface.
    """

    category: str
    seed: int
    input_image: UInt8[ndarray, "size size 4"]
    views: UInt8[ndarray, "view size size 4"]
    keypoints_3d: Float[ndarray, "landmark 3"]
    known: Bool[ndarray, " landmark"]
    keypoints_2d: Float[ndarray, "all_views landmark 2"]
    visible: Bool[ndarray, "all_views landmark"]
    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    caption: str
    captions: tuple[str, ...]
    background: Float[ndarray, "3"]
    input_azimuth_deg: float
    input_elevation_deg: float
    input_camera: Cameras
    cameras: Cameras
    surface: Float[ndarray, "point 3"]


@dataclass(frozen=True)
class Scene:
    """An object rotated so that the input view has azimuth 0, and the cameras.

    Attributes:
        thing: the object.
        azimuth_deg: azimuth of the input view about the object's own front.
        elevation_deg: elevation of the input view.
        input_camera: camera of the input view.
        cameras: cameras of the six views.
        rng: source of the random numbers that are still to be drawn.
    """

    thing: SyntheticObject
    azimuth_deg: float
    elevation_deg: float
    input_camera: Cameras
    cameras: Cameras
    rng: np.random.Generator

    @property
    def all_cameras(self) -> Cameras:
        """The input camera, then those of the views."""
        return self.input_camera.join(self.cameras)


def input_azimuth(spec: SampleSpec) -> float:
    """Compute :attr:`Scene.azimuth_deg` of a sample, in degrees, without building the scene."""
    return _azimuth_and_rest(spec)[0]


def scene_of(spec: SampleSpec) -> Scene:
    """Build the object and the cameras of a sample."""
    azimuth, rng = _azimuth_and_rest(spec)
    elevation = float(rng.uniform(*INPUT_ELEVATION_DEG))
    thing = _turn(make_object(spec.category, spec.seed), -azimuth)
    return Scene(thing, azimuth, elevation, orbit_cameras([0.0], [elevation]), zero123plus_cameras("v1.2"), rng)


def make_sample(spec: SampleSpec) -> Sample:
    """Build and render one sample. The same spec always gives the same sample."""
    scene = scene_of(spec)
    thing, rng, everything = scene.thing, scene.rng, scene.all_cameras
    surface = object_surface(thing)
    pictures = render(surface, everything, spec.size, random_light(rng))
    seen = visible(surface, thing.keypoints, everything) & thing.known
    xy = everything.project(torch.from_numpy(thing.keypoints).float()).numpy()
    return Sample(
        spec.category,
        spec.seed,
        pictures[0],
        pictures[1:],
        thing.keypoints,
        thing.known,
        xy,
        seen,
        thing.names,
        thing.pairs,
        str(rng.choice(thing.captions)),
        thing.captions,
        _random_background(rng),
        scene.azimuth_deg,
        scene.elevation_deg,
        scene.input_camera,
        scene.cameras,
        sample_surface(surface, SURFACE_POINTS, spec.seed),
    )


def make_samples(specs: list[SampleSpec], workers: int = 1) -> Iterator[Sample]:
    """Yield samples in the order of ``specs``, made by ``workers`` processes."""
    yield from in_parallel(make_sample, specs, workers)


def in_parallel(make: Callable[[S], T], specs: Sequence[S], workers: int, chunk: int = 16) -> Iterator[T]:
    """Yield ``make(spec)`` for each spec, in their order, computed by ``workers`` processes, each ``chunk`` at once."""
    if workers <= 1:
        yield from map(make, specs)
        return
    # spawn, not fork: torch's thread pools do not survive a fork.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
        yield from pool.map(make, specs, chunksize=chunk)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _random_background(rng: np.random.Generator) -> Float[ndarray, "3"]:
    """Draw white (half of the time), Zero123++'s grey, or a pale colour."""
    kind = rng.random()
    if kind < 0.5:
        return np.ones(3)
    if kind < 0.75:
        return np.full(3, GREY)
    paleness = rng.uniform(0.5, 0.85)
    mixed: ndarray = paleness + (1 - paleness) * np.array(COLORS[str(rng.choice(list(COLORS)))])
    return mixed


def _azimuth_and_rest(spec: SampleSpec) -> tuple[float, np.random.Generator]:
    """Return the input view's azimuth, and the generator for everything else in a sample except the object."""
    rng = np.random.default_rng([1, spec.seed])
    return float(rng.uniform(0, 360)) + spec.turn_deg, rng


def _turn(thing: SyntheticObject, angle_deg: float) -> SyntheticObject:
    rotation = rotation_about("z", angle_deg)

    def turned_part(part: Part) -> Part:
        paint = replace(part.paint, frequency=part.paint.frequency @ rotation.T)
        return Part(part.name, Shape(part.shape.vertices @ rotation.T, part.shape.faces), paint)

    return replace(thing, parts=tuple(map(turned_part, thing.parts)), keypoints=thing.keypoints @ rotation.T)


def as_object(sample: Sample) -> ObjectViews:
    """Convert a sample to the object that :func:`keyorbit.load_dataset` would read after it was written."""
    views = torch.from_numpy(composite(sample.views)).movedim(-1, 1).float() / 255
    truth = Truth(
        sample.names,
        sample.pairs,
        torch.from_numpy(sample.keypoints_3d).float(),
        torch.from_numpy(sample.known),
        torch.from_numpy(sample.keypoints_2d).float(),
        torch.from_numpy(sample.visible),
        surface=torch.from_numpy(sample.surface).float(),
    )
    masks = torch.from_numpy(sample.views[..., 3] > 127)
    picture = Image.fromarray(composite(sample.input_image, sample.background))
    return ObjectViews(
        f"{sample.category}_{sample.seed}",
        picture,
        views,
        masks,
        sample.cameras,
        truth=truth,
        input_elevation_deg=sample.input_elevation_deg,
    )
