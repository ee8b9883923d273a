"""The app's work without its page: limits, turns, discovery that stops and keeps, attention by layer."""

import re
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.pictures import blocks, close, photograph
from keyorbit.app.calls import example_pictures
from keyorbit.app.layers import attention_by_layer
from keyorbit.app.parts import gradio
from keyorbit.app.studio import Studio, examples, open_studio
from keyorbit.app.turns import ModelLock
from keyorbit.app.uploads import Limits, open_picture, open_pictures
from keyorbit.detection.kinds import KindDetector
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample


@pytest.fixture
def studio(backend, tmp_path, monkeypatch, few_denoising_steps):
    """Its discoveries plant for less time than users' do."""
    monkeypatch.setattr("keyorbit.app.studio.DiscoverConfig", partial(DiscoverConfig, planting=10, exemplars=2))
    return Studio(backend, untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)), tmp_path)


@pytest.fixture
def pictures(generator):
    noise = [torch.randint(0, 256, (24, 24, 3), generator=generator).byte().numpy() for _ in range(2)]
    return [ObjectViews(f"noise_{i}", Image.fromarray(pixels)) for i, pixels in enumerate(noise)]


def test_uploads_are_measured_before_they_are_decoded(tmp_path, monkeypatch):
    limits = Limits(bytes=3000, pixels=10_000)
    good = tmp_path / "good.png"
    Image.new("RGB", (50, 50)).save(good)
    assert open_picture(good, limits).size == (50, 50)
    Image.new("RGB", (2000, 2000)).save(tmp_path / "wide.png")
    (tmp_path / "heavy.png").write_bytes(b"x" * 3001)
    (tmp_path / "text.png").write_text("no picture")
    monkeypatch.setattr("keyorbit.app.uploads.load_image", None)  # whoever decodes fails
    refused = {"heavy": "larger than", "text": "cannot be read"} | {"wide": "10000 pixels|2000 × 2000"}
    for name, words in refused.items():
        with pytest.raises(InputError, match=words) as caught:
            open_picture(tmp_path / f"{name}.png", Limits(bytes=30_000 if name == "wide" else 3000, pixels=10_000))
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match="no picture yet"):
        open_picture(None, limits)


def test_a_cut_file_is_called_damaged(tmp_path):
    Image.effect_noise((64, 64), 50).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    with pytest.raises(InputError, match="damaged") as caught:
        open_picture(tmp_path / "cut.png", Limits())
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_an_upload_is_upright(orientation, suffix, tmp_path):
    found = open_picture(photograph(tmp_path / f"a.{suffix}", orientation), Limits())
    assert close(found, blocks())
    assert found.getexif().get(274, 1) == 1


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_an_upload_whose_values_have_no_range_is_refused(kind, tmp_path):
    Image.fromarray(np.full((9, 9), 700, kind)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="32 bits a channel") as caught:
        open_picture(tmp_path / "a.tif", Limits())
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_is_read_by_its_pictures(tmp_path):
    for name in ("notes.txt", "._a.png", ".DS_Store"):
        (tmp_path / name).write_text("no picture", encoding="utf-8")
    for name in "ba":
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    paths = [str(path) for path in tmp_path.iterdir()]
    assert [thing.name for thing in open_pictures(paths, Limits())] == ["a", "b"]
    with pytest.raises(InputError, match="2 pictures; 1 are the most"):
        open_pictures(paths, Limits(pictures=1))
    with pytest.raises(InputError, match="no pictures in that folder"):
        open_pictures([str(tmp_path / "notes.txt")], Limits())
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"c\.heic cannot be read as a picture; give a PNG, JPEG or WebP"):
        open_pictures([*paths, str(tmp_path / "c.heic")], Limits())


def test_who_waits_goes_first_when_another_gives_way():
    lock, order = ModelLock(), []

    def quick():
        with lock.held():
            order.append("quick")

    with lock.held():
        thread = threading.Thread(target=quick)
        thread.start()
        time.sleep(0.05)
        assert order == []
        for _ in range(200):
            lock.give_way()
            if order:
                break
        order.append("long")
    thread.join()
    assert order == ["quick", "long"]


def test_two_visitors_at_once_get_what_each_would_get_alone(studio, pictures):
    alone = [
        studio.detect(p, studio.tokens, studio.visits.errand("me"), studio.progress())[2].keypoints_2d.xy
        for p in pictures
    ]
    got = [None, None]

    def visit(i):
        found = studio.detect(pictures[i], studio.tokens, studio.visits.errand(str(i)), studio.progress())
        got[i] = found[2].keypoints_2d.xy

    job = studio.start(pictures, 2, 10)
    threads = [threading.Thread(target=visit, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert job.finished.wait(120)
    assert job.error is None
    assert all(torch.equal(a, b) for a, b in zip(alone, got, strict=True))


def test_a_stopped_discovery_keeps_what_is_there(studio, pictures):
    job = studio.start(pictures, 2, 1000)
    while not job.tokens and not job.finished.wait(0.02):
        pass
    job.stop()
    assert job.finished.wait(120)
    assert job.error is None
    assert len(job.tokens) == 2
    assert 10 <= len(job.losses) < 1000
    assert job.tokens.info.objects == 2


def test_stopping_before_the_first_step_says_that_there_is_nothing(studio, pictures):
    with studio.lock.held():
        job = studio.start(pictures, 2, 10)
        job.stop()
    assert job.finished.wait(120)
    assert "nothing to keep" in job.error


def test_watching_a_discovery_does_not_change_it(backend, objects):
    config = DiscoverConfig(2, 3, steps=4, batch=2, save_every=2, planting=3)
    seen = []
    watched = discover(backend, objects[:2], config, watch=lambda step, tokens: seen.append((step, tokens)) or True)
    plain = discover(backend, objects[:2], config)
    assert [step for step, _ in seen] == [2, 4]
    assert torch.equal(watched.embedding, plain.embedding)
    assert torch.equal(seen[1][1].embedding, plain.embedding)


def test_attention_by_layer_is_what_capture_records(backend, studio, pictures):
    views, layers = attention_by_layer(backend, studio.tokens, pictures[0], 1)
    assert views.shape[0] == 6
    assert len(layers) == len({layer.name for layer in layers}) > 2
    for layer in layers:
        height, width = layer.views.shape[-2:]
        assert layer.views.shape[0] == 6
        assert layer.given is not None
        assert height == width
        assert 0 < layer.views.max() <= 1
    with pytest.raises(InputError, match="keypoints 0 to 2, and no 3"):
        attention_by_layer(backend, studio.tokens, pictures[0], 3)
    assert (
        studio.attention(pictures[0].input_image, studio.tokens, studio.visits.errand("me"), 1).count("<tr>")
        == len(layers) + 1
    )


def test_the_app_starts_with_nothing_configured(tmp_path):
    studio = open_studio(None, None, "cpu", "float32", None, tmp_path)
    assert studio.backend.name == "tiny"
    assert studio.tokens.info.model_fingerprint == studio.backend.fingerprint, (
        "the tiny model has changed: make demo, then copy build/demo/run/tokens.safetensors to "
        "src/keyorbit/assets/examples/"
    )
    assert {some.info.model_fingerprint for some in studio.kinds.values()} == {studio.backend.fingerprint}
    assert [thing.truth is not None for thing in examples()] == [True] * 8
    # Two of which the tiny model makes no chair are not offered as pictures to try.
    offered = [path.parent.name for path in example_pictures()]
    assert offered == [f"chair_2_0000{i}" for i in (3, 2, 5, 6, 7, 1)]


def test_without_a_run_the_kind_is_looked_for_and_told(tmp_path):
    studio = open_studio(None, None, "cpu", "float32", None, tmp_path)
    thing = as_object(make_sample(SampleSpec("car", 2 * MAX_OBJECTS)))
    panel, _, found = studio.detect(thing, studio.tokens, studio.visits.errand("me"), studio.progress())
    assert found.kinds[0][0] == "car"
    assert found.trusted
    shown = re.search(r"<dt>kind</dt><dd>(.*?)</dd>", panel)[1]
    assert re.fullmatch(r"car \(\d+% sure\), not (chair|aeroplane|animal)(, (chair|aeroplane|animal)){2}", shown)
    own = studio.kinds["chair"].select(torch.arange(3))  # of a visitor
    assert isinstance(studio.detector(studio.tokens), KindDetector)
    assert not isinstance(studio.detector(own), KindDetector)


def test_without_a_run_attention_is_that_of_the_kind_that_is_found(tmp_path, monkeypatch):
    studio = open_studio(None, None, "cpu", "float32", None, tmp_path)
    picture, errand = as_object(make_sample(SampleSpec("car", 2 * MAX_OBJECTS))).input_image, studio.visits.errand("me")
    used, first = list[Tokens](), []

    def noted(backend, tokens, thing, token):
        used.append(tokens)
        first.extend([] if first else attention_by_layer(backend, tokens, thing, token))  # which takes seconds
        return tuple(first)

    monkeypatch.setattr("keyorbit.app.studio.attention_by_layer", noted)
    own = studio.kinds["chair"].select(torch.arange(3))  # of a visitor
    assert "of kind" not in studio.attention(picture, own, errand, 1)
    assert "by the tokens of kind car" in studio.attention(picture, studio.tokens, errand, 1)
    assert used[0] is own
    assert used[1] is studio.kinds["car"]


def test_without_gradio_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match=r"keyorbit\[app\]"):
        gradio()


def test_chairs_are_for_every_layout(model_folder, backend, tmp_path):
    assert all(len(thing.views) == 6 for thing in Studio(backend, Tokens(torch.zeros(1, 16)), tmp_path).chairs())
    four = load_backend(model_folder, layout="2x2", rig="mvdream")
    assert all(thing.views is None for thing in Studio(four, Tokens(torch.zeros(1, 16)), tmp_path).chairs())


def test_what_was_cut_out_is_among_the_downloads(studio, pictures):
    image = pictures[0].input_image
    mask = Image.new("L", image.size)
    mask.paste(255, (4, 4, 12, 12))
    for background, given, kept in (("auto", mask, True), ("keep", None, False)):
        thing = ObjectViews("picture", image, background=background, mask=given)
        files = studio.detect(thing, studio.tokens, studio.visits.errand("me"), studio.progress())[1]
        assert any(file.endswith("cutout.png") for file in files) is kept
