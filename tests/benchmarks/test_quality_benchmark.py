"""The benchmark of keypoints against the truth runs, and its baselines are what they say."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import keyorbit as ko
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.objects.dataset import ObjectViews
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample


@pytest.fixture(scope="module")
def quality(benchmark_script):
    return benchmark_script("quality")


@pytest.fixture(scope="module")
def mugs(quality):
    return quality.split("mug", "train", 3, 16, 1)


def few(**settings):
    """Settings of a run that plants little."""
    return DiscoverConfig(**{"planting": 2, "exemplars": 1} | settings)


def call(quality, monkeypatch, model_folder, *words):
    base = f"--model {model_folder} --categories mug --seeds 0 --train 3 --test 2 --steps 2 --fit 3 --workers 1"
    monkeypatch.setattr(quality, "blank_backend", lambda seed: ko.load_backend(model_folder))
    monkeypatch.setattr(sys, "argv", ["quality.py", *base.split(), *map(str, words)])
    monkeypatch.setattr(quality.ko, "DiscoverConfig", few)
    quality.main()


def test_every_baseline_is_a_row_and_a_second_run_goes_on(quality, model_folder, tmp_path, monkeypatch, capsys):
    path = tmp_path / "q.json"
    call(quality, monkeypatch, model_folder, "--json", path, "--markdown", tmp_path / "q.md")
    rows = json.loads(path.read_text())["rows"]["mug"]
    assert set(rows) == {row.name for row in quality.BASELINES}
    for name, seeds in rows.items():
        if name.startswith("mean shape"):
            assert seeds["0"]["landmark_3d"] > 0
        elif name.startswith("phrases"):
            assert seeds["0"] == {}  # the model was told nothing of mugs
        elif not name.startswith("SIFT"):
            assert all(np.isfinite(seeds["0"][field]) for field in quality.FIELDS), name
    assert "| mug | StableKeypoints per view |" in (tmp_path / "q.md").read_text()
    before = path.read_bytes()
    monkeypatch.setattr(quality.SharedWork, "discover", lambda *args: pytest.fail("a row was run again"))
    call(quality, monkeypatch, model_folder, "--json", path)
    assert path.read_bytes() == before
    assert "mean shape" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="other settings"):
        call(quality, monkeypatch, model_folder, "--json", path, "--fit", 2)


def test_an_ablation_changes_one_thing(quality, model_folder, tmp_path, monkeypatch):
    names = ["views: 2, triangulated", "objects: 2", "no constellation, no geometric", "layers: up only"]
    words = ["--ablation", "--rows", *names, "--json", tmp_path / "q.json"]
    call(quality, monkeypatch, model_folder, *words)
    rows = json.loads((tmp_path / "q.json").read_text())["rows"]["mug"]
    assert set(rows) == set(names)
    assert all(seeds["0"]["landmark_3d"] > 0 for seeds in rows.values())
    assert len({seeds["0"]["landmark_3d"] for seeds in rows.values()}) == len(names)


def test_shared_work_gives_what_unshared_work_gives(quality, mugs, backend):
    config = few(num_tokens=3, num_candidates=4, steps=2, batch=2, layers="up_blocks.*", maps="attention")
    alone = ko.discover(backend, mugs, config)
    found = ko.KeypointDetector(backend, alone).detect(mugs[0])
    work = quality.SharedWork()
    for _ in range(2):
        together = work.discover(backend, mugs, config)
        assert torch.equal(together.embedding, alone.embedding)
        (again,) = work.detect_all(ko.KeypointDetector(backend, alone), mugs[:1])
        assert torch.equal(again.keypoints_2d.xy, found.xy)
    assert len(work.sources) == len(work.recordings) == 1


def test_other_losses_move_the_tokens_and_a_misread_grid_moves_them_elsewhere(quality, mugs, backend):
    seen = []

    def watched(maps, warps):
        seen.append(maps.shape)
        return quality.shape_analysis_losses(maps, warps)

    config = ko.DiscoverConfig(num_tokens=3, num_candidates=3, steps=3, batch=3, rate=0.5)
    work = quality.SharedWork()
    tokens = quality.optimise(backend, mugs, config, watched, work)
    misread = quality.optimise(backend, mugs, config, watched, work, misread=True)
    start = quality.untrained(backend, config)
    assert len(seen) == 6
    assert len(set(seen)) == 1
    embeddings = [x.embedding.sort(0).values for x in (start, tokens, misread)]
    assert all(not torch.allclose(embeddings[i], embeddings[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert tokens.info.settings["maps"] == "attention"


def test_sift_words_follow_a_pattern_through_views_and_objects(quality, benchmark_script, backend, monkeypatch):
    pytest.importorskip("cv2")
    generator = np.random.default_rng(0)
    patch = generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)

    def thing(name, shift):
        canvas = np.full((6, 64, 64, 3), 127, np.uint8)
        canvas[:, 20 + shift : 40 + shift, 22:42] = patch
        views = torch.from_numpy(canvas).permute(0, 3, 1, 2).float() / 255
        masks = torch.zeros(6, 64, 64, dtype=torch.bool)
        masks[:, 18 + shift : 42 + shift, 20:44] = True
        return ObjectViews(name, Image.new("RGB", (64, 64)), views, masks, ko.zero123plus_cameras("v1.2"))

    # The views as they are, not at the tiny model's 16 pixels.
    baselines = benchmark_script("baselines")
    monkeypatch.setattr(baselines, "object_views", lambda thing, *_: (thing.views, thing.masks, thing.cameras))
    things = [thing("a", 0), thing("b", 8)]
    ((first, second),) = quality.sift_words(backend, things[:1], [things], 4, seed=0)
    moved = second.keypoints_2d.xy - first.keypoints_2d.xy
    torch.testing.assert_close(moved.median(1).values, torch.tensor([0.0, 8 / 64]).expand(6, 2), atol=0.02, rtol=0)
    assert first.keypoints_3d is not None


def test_the_splits_share_no_object_with_each_other(quality):
    seeds = {name: {int(o.name.split("_")[1]) for o in quality.split("mug", name, 3, 16, 1)} for name in quality.SPLITS}
    assert len(set.union(*seeds.values())) == 9


def test_the_mean_shape_of_one_object_turned_is_that_object(quality):
    """The same chair seen from another azimuth: exact once its heading is known (5° steps), far off otherwise."""
    first, second = (as_object(make_sample(SampleSpec("chair", 5, 16, turn))) for turn in (0.0, 35.0))
    assert quality.mean_shape([first], [second], turned=True) < 1e-5
    assert quality.mean_shape([first], [second], turned=False) > 0.1
