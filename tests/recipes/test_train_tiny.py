"""The recipe of the tiny model: what it writes loads, and a stopped run ends as if it had not stopped."""

import json
import os
import runpy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from helpers.models import SMALL
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint
from keyorbit.synthetic.samples import SampleSpec, input_azimuth
from keyorbit.training import state
from keyorbit.training.schedule import OptimiseConfig
from tiny_model import denoising
from tiny_model.denoising import DenoisingConfig, timesteps
from tiny_model.model import init_from, make_tiny, save_folder
from tiny_model.probe import ProbeConfig, landmark_probe, probe_objects
from tiny_model.train import TrainTinyConfig, train
from tiny_model.training_data import render_training_set
from tiny_model.vision import VisionConfig, render_looks, varied

PROBE = ProbeConfig(every=2, train_objects=2, test_objects=2, steps=2, samples=1, sample_steps=1)
FEW = TrainTinyConfig(
    categories=("chair", "mug"),
    objects=2,
    vae=OptimiseConfig(2, 1e-3, save_every=1, log_every=1),
    vae_batch=2,
    vision=VisionConfig(2, looks=2, optimise=OptimiseConfig(2, 1e-3, save_every=1, log_every=1)),
    denoising=DenoisingConfig(2, optimise=OptimiseConfig(4, 1e-3, save_every=1, log_every=1)),
    probe=PROBE,
    workers=1,
)


def unet_steps(steps):
    return replace(FEW.denoising, optimise=replace(FEW.denoising.optimise, steps=steps))


def weights(folder):
    return load_backend(folder).unet.state_dict()


def test_a_stopped_training_resumes_bit_identical(tmp_path):
    assert train(FEW, tmp_path / "whole", tmp_path / "whole_model", SMALL)
    with pytest.MonkeyPatch.context() as patch:
        saved = []

        def save(path, tensors, metadata, **options):
            save_checkpoint(path, tensors, metadata, **options)
            saved.append(path.name)
            if saved.count("unet.safetensors") == 2:
                raise KeyboardInterrupt

        patch.setattr(state, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            train(FEW, tmp_path / "stopped", tmp_path / "model", SMALL)
    assert not (tmp_path / "model").exists()
    train(FEW, tmp_path / "stopped", tmp_path / "model", SMALL)
    whole, resumed = weights(tmp_path / "whole_model"), weights(tmp_path / "model")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    log = (tmp_path / "whole" / "log.jsonl").read_text()
    assert log.count('"stage": "probe"') == 2
    assert len(list((tmp_path / "whole").glob("samples_*.png"))) == 2
    longer = replace(FEW, denoising=unet_steps(6))
    train(longer, tmp_path / "stopped", tmp_path / "longer", SMALL)
    assert any(not torch.equal(resumed[name], value) for name, value in weights(tmp_path / "longer").items())


def test_a_slice_that_runs_out_of_time_is_saved_and_says_so(tmp_path):
    """No minutes at all: nothing is trained, and the plan is not done."""
    assert not train(FEW, tmp_path / "run", tmp_path / "model", SMALL, minutes=0.0)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "run" / "data.safetensors").exists()


def test_the_vision_encoder_learns_what_the_views_show(tmp_path):
    few = OptimiseConfig(200, 1e-3, warmup=5, average=0.5, save_every=200, log_every=20)
    config = replace(FEW, vision=VisionConfig(8, looks=2, optimise=few), denoising=unet_steps(0))
    train(config, tmp_path, tmp_path / "model", SMALL)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first, *_, last = [line for line in lines if line["stage"] == "vision"]
    # Four objects on two grounds: less than half of what is unknown at first is left.
    assert all(last[term] < 0.5 * first[term] for term in ("views", "kind", "heading"))


def test_a_mirrored_look_is_the_object_seen_from_the_other_side(tmp_path):
    """The oracle: a chair, symmetric in shape, rendered at the azimuth that ``varied`` says."""
    there = SampleSpec("chair", 3, 32)
    back = replace(there, turn_deg=-2 * input_azimuth(there))
    looks = render_looks([there, back], 1, tmp_path / "looks.safetensors")
    azimuth = torch.tensor([input_azimuth(there)]).deg2rad()
    generator = torch.Generator().manual_seed(0)
    white = torch.cat([torch.full((1, 32, 32, 3), 255, dtype=torch.uint8), looks[:1, ..., 3:]], dim=-1)
    expected = {float(azimuth): looks[0, ..., 3], -float(azimuth): looks[1, ..., 3]}
    met = set()
    for _ in range(40):
        seen, heading = varied(white, azimuth, generator)
        if (seen[0, 0, 0] < 250).any():  # not on white: the silhouette can be seen
            ground = seen[0, 0, 0].float()
            alpha = ((seen[0].float() - ground) / (255 - ground)).mean(-1)
            assert (alpha - expected[float(heading)].float() / 255).abs().mean() < 0.02
            met.add(float(heading))
    assert met == expected.keys()
    assert (looks[0, ..., 3].float() - looks[1, ..., 3].float()).abs().mean() > 5  # the sides differ
    with pytest.raises(InputError, match="other objects"):
        render_looks([there], 1, tmp_path / "looks.safetensors")


def test_a_look_keeps_its_colours_in_some_order():
    picture = torch.tensor([10, 100, 200, 255], dtype=torch.uint8).expand(64, 2, 2, 4)
    seen, _ = varied(picture, torch.zeros(64), torch.Generator().manual_seed(0))
    assert (seen.sort(-1).values == torch.tensor([10, 100, 200])).all()
    assert len(set(map(tuple, seen[:, 0, 0].tolist()))) == 6


def test_coarse_steps_are_at_high_timesteps_and_seek_no_place(tmp_path):
    generator = torch.Generator().manual_seed(0)
    here = torch.device("cpu")
    high, low = (timesteps(FEW.denoising, coarse, 4000, generator, here) for coarse in (True, False))
    assert (int(high.min()), int(high.max())) == (600, 999)
    assert (int(low.min()), int(low.max())) == (0, 599)
    # Half at random below 600, half below 300: three quarters below 300.
    assert float((low < 300).float().mean()) == pytest.approx(0.75, abs=0.03)
    beside = {"stage", "step", "loss", "kind", "heading"}  # the last two of the vision encoder, in every step
    for share, terms in ((0.0, {"denoising", "grounding", "input grounding"}), (1.0, {"coarse denoising"})):
        out = tmp_path / str(share)
        config = replace(FEW, denoising=replace(FEW.denoising, coarse=share), probe=replace(PROBE, every=100))
        train(config, out, out / "model", SMALL)
        lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
        assert all(line.keys() == terms | beside for line in lines if line["stage"] == "unet")


def test_the_vision_encoder_goes_on_learning_beside_the_unet(tmp_path):
    """One step alone, then beside the UNet: what there is to learn goes on falling."""
    few = OptimiseConfig(100, 1e-3, warmup=5, average=0.5, save_every=100, log_every=20)
    config = replace(
        FEW,
        vision=VisionConfig(8, looks=2, optimise=replace(few, steps=1)),
        denoising=replace(FEW.denoising, coarse=1.0, optimise=few),
        probe=replace(PROBE, every=1000),
    )
    train(config, tmp_path, tmp_path / "model", SMALL)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    first, *_, last = [line for line in lines if line["stage"] == "unet"]
    assert last["heading"] < 0.5 * first["heading"]


def test_training_goes_on_from_a_model_folder(tmp_path, model_folder):
    parts = make_tiny(SMALL, seed=2)
    source = load_backend(model_folder).parts
    key = "conv_in.weight"
    assert not torch.equal(parts.unet.state_dict()[key], source.unet.state_dict()[key])
    init_from(parts, model_folder)
    for name in ("vae", "unet", "vision_encoder", "text_encoder"):
        own, other = getattr(parts, name).state_dict(), getattr(source, name).state_dict()
        assert all(torch.equal(own[key], other[key]) for key in own)
    wider = make_tiny(replace(SMALL, unet_channels=(16, 48)), seed=2)
    before = wider.unet.state_dict()["mid_block.resnets.0.conv1.weight"].clone()
    init_from(wider, model_folder)
    assert torch.equal(wider.unet.state_dict()[key], source.unet.state_dict()[key])
    assert torch.equal(wider.unet.state_dict()["mid_block.resnets.0.conv1.weight"], before)


def test_a_wider_context_starts_with_the_same_outputs(tmp_path, model_folder):
    narrow = load_backend(model_folder)
    parts = make_tiny(replace(SMALL, width=2 * SMALL.width), seed=2)
    parts.text_encoder.config.num_attention_heads = 8
    save_folder(parts, tmp_path / "wide", SMALL.view_size)
    wide = load_backend(tmp_path / "wide")
    init_from(wide.parts, model_folder)
    prompts = ["a red chair", ""]
    before, after = narrow.encode_prompts(prompts), wide.encode_prompts(prompts)
    torch.testing.assert_close(after, torch.cat([before, before], dim=-1), rtol=1e-4, atol=1e-5)
    for name, layer in narrow.parts.unet.named_modules():
        if name.endswith("attn2"):
            wider = wide.parts.unet.get_submodule(name)
            torch.testing.assert_close(wider.to_k(after), layer.to_k(before), rtol=1e-4, atol=1e-5)
            # Not two copies of one matrix: those would give a token no more to choose from.
            halves = wider.to_k.weight.chunk(2, dim=1)
            assert (halves[0] - halves[1]).abs().mean() > 0.1 * halves[0].abs().mean()


def run_recipe(*words):
    command = [sys.executable, "-m", "tiny_model.train", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_recipe_runs_by_command(tmp_path):
    """The shipped sizes, a few steps: render, VAE, UNet, probe, samples, and a folder that loads."""
    done = run_recipe("--out", str(tmp_path), "--smoke", "--threads", "1", "--categories", "lamp,person")
    assert done.returncode == 0, done.stderr
    assert load_backend(tmp_path / "model").view_size == 64
    assert "PCK@0.1" in done.stderr
    assert (tmp_path / "samples_000003.png").is_file()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_an_unknown_category_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)  # it would last for the tests that follow
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(tmp_path / "run"), "--categories", "chair,boat"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("tiny_model.train", run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("train: no category boat")
    assert not (tmp_path / "run").exists()


def test_the_rate_rises_stays_and_falls():
    config = OptimiseConfig(1000, 1.0, warmup=10, cooldown=0.2)
    assert config.rate_at(0) == pytest.approx(0.1)
    assert config.rate_at(10) == config.rate_at(800) == 1.0
    assert config.rate_at(900) == pytest.approx(0.5)
    assert config.rate_at(999) == pytest.approx(0.05)


def test_another_training_set_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / "data.safetensors"
    first = render_training_set(("chair",), 2, 0, 16, 1, path)
    assert first.inputs.shape == (2, 2, 16, 16, 3)
    assert not torch.equal(first.inputs[0, 0], first.inputs[0, 1]) or first.captions[0] == first.captions[1]
    with pytest.raises(InputError, match="another folder"):
        render_training_set(("mug",), 2, 0, 16, 1, path)


def test_the_probe_finds_landmarks_that_the_queries_know(backend, monkeypatch):
    """Queries that hold a landmark's map in one channel each: the fitted tokens must find them on other objects."""
    from keyorbit.diffusion.queries import LayerQueries, QueryCache
    from keyorbit.geometry.heatmaps import gaussian
    from keyorbit.geometry.views import merge_views
    from tiny_model import probe

    def knowing(objects):
        xy = torch.stack([thing.truth.keypoints_2d[1:] for thing in objects])
        maps = gaussian(xy.clamp(0, 1), 16, 16, 1.0).transpose(1, 2)  # item landmark view 16 16
        grid = merge_views(maps, backend.layout).flatten(2).transpose(1, 2)
        query = torch.nn.functional.pad(grid, (0, 16 - grid.shape[-1]))[:, None]
        return QueryCache((LayerQueries("x", (48, 32), query, torch.zeros(query.shape[:3]), torch.eye(16)),), 1)

    config = ProbeConfig(train_objects=8, test_objects=4, steps=200)
    objects = probe_objects("chair", config, backend.view_size)
    blind = landmark_probe(backend, objects, replace(config, steps=5))
    monkeypatch.setattr(probe, "record", lambda thing, *_: thing)
    monkeypatch.setattr(probe, "joined", knowing)
    assert landmark_probe(backend, objects, config) > max(0.9, 2 * blind)


def test_checkpoints_are_whole_or_not_there(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"x": torch.arange(6.0).reshape(2, 3).T}, {"step": 3})
    tensors, metadata = load_checkpoint(path)
    assert torch.equal(tensors["x"], torch.arange(6.0).reshape(2, 3).T)
    assert metadata == {"step": 3}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"c\.safetensors"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none")


@pytest.mark.parametrize("before", [0, 4000])
def test_time_is_filled_and_ends_with_the_rate_falling(before, monkeypatch):
    """Whatever was done before: the steps of 77 % of the time are four fifths of those that are done now."""
    calls = []

    def run(plan, until):
        calls.append((until, plan))
        return len(calls) == 2

    monkeypatch.setattr(denoising.time, "monotonic", lambda: 1000.0)
    long = OptimiseConfig(10**6, 1.0)
    assert denoising.filled(run, long, 1100.0, lambda: range(before, before + 400))
    (first, whole), (last, plan) = calls
    assert (first, whole, last) == (1077.0, long, 1100.0)
    assert plan.steps == before + 500
    assert plan.rate_at(before + 399) == 1.0 > plan.rate_at(before + 410)
    assert plan.rate_at(before + 450) == pytest.approx(0.5)
    assert plan.rate_at(before + 499) == pytest.approx(0.05)


def test_time_that_is_over_before_a_step_leaves_the_plan_as_it_is(monkeypatch):
    """A run of 4,000 steps that is resumed with no time left is not cut to none."""
    plans = []
    denoising.filled(lambda plan, _: bool(plans.append(plan)), OptimiseConfig(10**6, 1.0), 0.0, lambda: range(0))
    assert [plan.steps for plan in plans] == [10**6, 10**6]
