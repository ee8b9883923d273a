"""Crops that are moved and mirrored at random, as StableKeypoints' data sets have them, and what draws them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import layouts
from keyorbit.discovery.config import preset_config
from keyorbit.discovery.live import open_live
from keyorbit.evaluation.readers import read_dataset
from keyorbit.evaluation.readers.cub import cmr_square
from keyorbit.evaluation.readers.human36m_frames import person_square
from keyorbit.objects.dataset import ObjectDataset, ObjectViews, drawn
from keyorbit.ranks import Ranks
from oracles import published_crops as oracle


@pytest.mark.parametrize("write", [layouts.write_cub, layouts.write_cub_mat])
def test_train_birds_are_drawn_as_published(write, tmp_path):
    write(tmp_path)
    birds = read_dataset("cub-all", tmp_path, "train")
    assert birds[0].input_image.size == (9, 9)
    picture = np.asarray(Image.open(tmp_path / "CUB_200_2011" / "images" / f"{layouts.BIRDS[0]}.jpg"))
    parts = [(2.0 + p / 2, 1.0 + p / 3, 0 if p == 4 else 1) for p in range(1, 16)]
    mirrors = set()
    for seed in range(24):
        thing = birds.drawn(0, torch.Generator().manual_seed(seed))
        *numbers, flip = torch.rand(5, generator=torch.Generator().manual_seed(seed)).tolist()
        mirrors.add(flip > 0.5)
        cut, places, seen = oracle.bird(picture, (2, 1), (10, 7), parts, numbers, flip > 0.5)
        np.testing.assert_array_equal(np.asarray(thing.input_image), cut)
        np.testing.assert_array_equal(thing.truth.known, seen)
        np.testing.assert_allclose(thing.truth.keypoints_2d[0][seen], places[seen], atol=1e-6)
        assert torch.equal(thing.truth.visible[0], thing.truth.known)
    assert mirrors == {True, False}
    # A picture that is tested is not drawn.
    for dataset, split in (("cub-all", "test"), ("cub-aligned", "train"), ("cub-aligned", "test")):
        still = read_dataset(dataset, tmp_path, split)
        assert still.drawn(0, torch.Generator()).input_image.tobytes() == still[0].input_image.tobytes()


def test_squares_about_a_box_are_the_published():
    draw = np.random.default_rng(0)
    blank = np.zeros((0, 0, 3), np.uint8)
    for _ in range(300):
        first = draw.integers(0, 60, 2).astype(float)
        last, numbers = first + draw.integers(1, 40, 2), draw.random(4).tolist()
        part = [(*first, 1)] * 15
        cut, places, _ = oracle.bird(blank, first, last, part, numbers, False)
        left, top, right, bottom = cmr_square((*first.tolist(), *last.tolist()), numbers)
        assert right - left == bottom - top == len(cut)
        np.testing.assert_allclose([(first[0] - left) / len(cut), (first[1] - top) / len(cut)], places[0], atol=1e-12)


def test_people_are_cut_out_as_published(tmp_path):
    draw = np.random.default_rng(0)
    for _ in range(200):
        joints = draw.uniform(150, 850, 2) + draw.uniform(-1, 1, (32, 2)) * draw.uniform(20, 140, 2)
        shift = draw.integers(-100, 100, 2).tolist()
        left, top, width, height = oracle.person(joints.tolist(), 1000, 1002, shift)
        assert person_square(joints, (1000, 1002), shift) == (left, top, left + width, top + height)
    layouts.write_human36m_frames(tmp_path)
    for split in ("train", "test"):
        people = read_dataset("unaligned-human3.6m", tmp_path, split)
        layouts.picture(next((tmp_path / "S11" / "Directions" / "imageSequence").rglob("*.jpg")), 90, 80)
        sizes = {people.drawn(0, torch.Generator().manual_seed(seed)).input_image.size for seed in range(4)}
        assert len(sizes) > 1


def test_taichis_train_pictures_are_mirrored_by_half(tmp_path):
    layouts.write_taichi(tmp_path)
    people = read_dataset("taichi", tmp_path, "train")
    own = np.asarray(people[1].input_image)
    found = [people[1:].drawn(0, torch.Generator().manual_seed(seed)) for seed in range(16)]
    flipped = [(np.asarray(one.input_image) == own[:, ::-1]).all() for one in found]
    assert 0 < sum(flipped) < 16
    assert [one.truth is None for one in found] == flipped
    assert all((np.asarray(one.input_image) == own).all() for one, flip in zip(found, flipped, strict=True) if not flip)
    assert read_dataset("taichi", tmp_path, "test").drawn(0, torch.Generator()).truth is not None


def test_a_discovery_that_draws_draws_crops_too(stable_diffusion):
    def make(i, number=0):
        return ObjectViews(f"{i} {number}", Image.new("RGB", (32, 32), (i, number % 256, 0)))

    objects = ObjectDataset(3, make, lambda i, g: make(i, int(torch.randint(1, 2**40, (), generator=g))))
    config = preset_config("stablekeypoints").settled(stable_diffusion)
    source = open_live(stable_diffusion, objects[1:], config, Ranks())
    names = [source.draw(number)[0].name for number in range(8)]
    assert {name[0] for name in names} == {"1", "2"}
    assert len({*names}) == 8
    assert names == [source.draw(number)[0].name for number in range(8)]
    assert drawn([make(1)], 0, torch.Generator()).name == "1 0"


def test_views_are_generated_once_an_object(backend, monkeypatch):
    made = []
    generate = backend.generate
    monkeypatch.setattr(backend, "generate", lambda *words: made.append(1) or generate(*words, steps=2))
    colours = [ObjectViews(name, Image.new("RGB", (40, 30), name)) for name in ("red", "blue")]
    config = replace(preset_config("stablekeypoints"), num_candidates=12, map_size=16).settled(backend)
    source = open_live(backend, colours, config, Ranks())
    seen = [source.draw(number)[0] for number in range(6)]
    assert len(made) == 2
    for thing in seen:
        first = next(one for one in seen if one.name == thing.name)
        assert torch.equal(thing.views, first.views)
    source.maps(0, torch.randn(12, 16, generator=torch.Generator().manual_seed(0)))
    assert len(made) == 2
    again = open_live(backend, colours, config, Ranks())
    last = again.draw(5)[0]
    assert (last.name, torch.equal(last.views, seen[5].views)) == (seen[5].name, True)
