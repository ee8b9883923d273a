"""Public functions that are given something of a wrong kind say so in a sentence that names it, and what to give."""

from functools import partial
from pathlib import Path

import jaxtyping
import pytest
import torch

import keyorbit as ko
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectDataset

TOKENS = ko.Tokens(torch.randn(4, 16, generator=torch.Generator().manual_seed(0)))
CONFIG = DiscoverConfig(num_tokens=4, steps=1)
TRAIN = ko.TrainConfig(train="tokens", num_tokens=4, steps=1)
MARK = ko.Mark("seat", xyz=(0.0, 0.0, 0.0))
POINTS = ko.Keypoints2D(torch.rand(6, 2, 2), torch.ones(6, 2), None)
# Of every argument of the kinds that are mistaken: what takes it, by what it is called in the sentence.
GIVEN = {
    "objects": {
        "discover": lambda to, one: ko.discover(to.backend, one, CONFIG),
        "plan_cache": lambda to, one: ko.plan_cache(to.backend, one, CONFIG),
        "build_cache": lambda to, one: ko.build_cache(to.backend, one, to.index, to.new),
        "mark": lambda to, one: ko.mark(to.backend, one, [MARK]),
        "evaluate": lambda to, one: ko.evaluate([to.found], one),
        "train": lambda to, one: ko.train(to.backend, one, TRAIN, to.new),
    },
    "backend": {
        "discover": lambda to, one: ko.discover(one, to.objects, CONFIG),
        "plan_cache": lambda to, one: ko.plan_cache(one, to.objects, CONFIG),
        "build_cache": lambda to, one: ko.build_cache(one, to.objects, to.index, to.new),
        "mark": lambda to, one: ko.mark(one, to.objects, [MARK]),
        "train": lambda to, one: ko.train(one, to.objects, TRAIN, to.new),
        "training_step": lambda to, one: ko.training_step(one, to.objects[0], TOKENS),
        "KeypointDetector": lambda _, one: ko.KeypointDetector(one, TOKENS),
    },
    "config": {
        "discover": lambda to, one: ko.discover(to.backend, to.objects, one),
        "plan_cache": lambda to, one: ko.plan_cache(to.backend, to.objects, one),
        "mark": lambda to, one: ko.mark(to.backend, to.objects, [MARK], one),
        "train": lambda to, one: ko.train(to.backend, to.objects, one, to.new),
        "KeypointDetector": lambda to, one: ko.KeypointDetector(to.backend, TOKENS, one),
    },
    "tokens": {
        "KeypointDetector": lambda to, one: ko.KeypointDetector(to.backend, one),
        "training_step": lambda to, one: ko.training_step(to.backend, to.objects[0], one),
        "train": lambda to, one: ko.train(to.backend, to.objects, TRAIN, to.new, one),
    },
    "base": {"mark": lambda to, one: ko.mark(to.backend, to.objects, [MARK], None, one)},
    "the object": {"training_step": lambda to, one: ko.training_step(to.backend, one, TOKENS)},
    "cache": {"discover_cached": lambda _, one: ko.discover_cached(one, CONFIG)},
    "index": {"build_cache": lambda to, one: ko.build_cache(to.backend, to.objects, one, to.new)},
    "recording": {"read": lambda to, one: to.detector.read(one)},
    "detections": {"evaluate": lambda to, one: ko.evaluate(one, to.objects)},
    "given": {"load_meshes": lambda _, one: ko.load_meshes(one)},
    "name": {"ObjectViews": lambda to, one: ko.ObjectViews(one, to.objects[0].input_image)},
    "input_image": {"ObjectViews": lambda _, one: ko.ObjectViews("chair", one)},
    "views": {"ObjectViews": lambda to, one: ko.ObjectViews("chair", to.objects[0].input_image, one)},
    "is no mark": {
        "mark": lambda to, one: ko.mark(to.backend, to.objects, one),
        "write_marks": lambda to, one: ko.write_marks(to.new, one),
    },
    "path": {
        "load_dataset": lambda _, one: ko.load_dataset(one),
        "read_marks": lambda _, one: ko.read_marks(one),
        "write_marks": lambda _, one: ko.write_marks(one, [MARK]),
        "Tokens.load": lambda _, one: ko.Tokens.load(one),
        "Tokens.save": lambda _, one: TOKENS.save(one),
        "Evaluation.load": lambda _, one: ko.Evaluation.load(one),
        "Keypoints2D.load": lambda _, one: ko.Keypoints2D.load(one),
        "Keypoints2D.save": lambda _, one: POINTS.save(one),
    },
    "folder": {
        "open_cache": lambda _, one: ko.open_cache(one),
        "build_cache": lambda to, one: ko.build_cache(to.backend, to.objects, to.index, one),
    },
    "out": {
        "discover": lambda to, one: ko.discover(to.backend, to.objects, CONFIG, one),
        "train": lambda to, one: ko.train(to.backend, to.objects, TRAIN, one),
    },
}
CALLS = [
    pytest.param(name, call, id=f"{name} of {door}") for name, calls in GIVEN.items() for door, call in calls.items()
]


class World:
    """What the calls take besides the one thing that is wrong."""

    def __init__(self, backend, objects, new):
        self.backend, self.objects, self.new = backend, objects, new
        self.index = ko.plan_cache(backend, objects, CONFIG)
        self.detector = ko.KeypointDetector(backend, TOKENS, ko.DetectConfig(noises=1, warps=0), force=True)
        self.found = self.detector.detect_object(objects[0])


@pytest.fixture(scope="module")
def world(backend, objects, tmp_path_factory):
    return World(backend, objects, tmp_path_factory.mktemp("world") / "new")


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as at a user's


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_a_wrong_kind_is_told(name, call, world, unchecked):
    for wrong in (3, b"chairs", {"chairs": 1}, object(), torch.zeros(3)):
        with pytest.raises(InputError, match=name) as told:
            call(world, wrong)
        assert "\n" not in str(told.value), str(told.value)
    assert not world.new.exists(), "something was written"


@pytest.mark.parametrize("call", GIVEN["objects"].values(), ids=GIVEN["objects"])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("chairs", "objects cannot be the path 'chairs': read them, by keyorbit.load_dataset"),
        (Path("chairs"), "objects cannot be the path 'chairs': read them, by keyorbit.load_dataset"),
        (["chairs"], r"objects\[0\] cannot be 'chairs', of type str; give an ObjectViews"),
        (None, "objects cannot be None, of type NoneType; give what keyorbit.load_dataset returns"),
    ],
)
def test_what_is_no_list_of_objects_is_told(call, wrong, words, world, unchecked):
    with pytest.raises(InputError, match=words):
        call(world, wrong)


@pytest.mark.parametrize("call", GIVEN["objects"].values(), ids=GIVEN["objects"])
def test_one_object_alone_is_told(call, world, unchecked):
    with pytest.raises(InputError, match=f"objects cannot be {world.objects[0].name} alone: give a list with it"):
        call(world, world.objects[0])


def test_each_object_needs_its_detection(world):
    for detections, objects, words in (
        ([world.found], world.objects, "1 detections do not fit 3 objects: give one for each"),
        ([world.found] * 3, world.objects[:1], "3 detections do not fit 1 objects"),
        ([], [], "there are no objects to evaluate"),
    ):
        with pytest.raises(InputError, match=words):
            ko.evaluate(detections, objects)
    with pytest.raises(InputError, match="2 detections do not fit 3 objects"):
        ko.evaluate([world.found], world.objects[:1], [world.found] * 2, world.objects)


def test_a_cache_is_filled_with_the_objects_that_it_was_planned_for(world):
    with pytest.raises(InputError, match="planned for 3 objects, not 2: plan it for these"):
        ko.build_cache(world.backend, world.objects[:2], world.index, world.new)
    assert not world.new.exists()


def test_settings_within_settings_are_checked(world, unchecked):
    make = partial(DiscoverConfig, num_tokens=4)
    assert make(prepare={"noises": 2}).prepare.noises == 2
    with pytest.raises(InputError, match="prepare has noise; there are: timestep"):
        make(prepare={"noise": 2})
    with pytest.raises(InputError, match="prepare cannot be ObjectDataset"):
        make(prepare=ObjectDataset(3, world.objects.__getitem__))


def test_a_folder_may_be_a_text(world, tmp_path):
    found = ko.discover(world.backend, world.objects, CONFIG, str(tmp_path / "run"))
    assert len(found) == 4
    assert (tmp_path / "run" / "losses.jsonl").is_file()
