"""Joint training: gradients reach what learns, nothing depends on how a step is cut, and a killed run resumes."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from copy import copy
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel

from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.backends.base import Condition
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError
from keyorbit.geometry.heatmaps import gaussian, normalize
from keyorbit.geometry.warps import Warp
from keyorbit.objects.dataset import ObjectViews
from keyorbit.storage.checkpoint import load_checkpoint
from keyorbit.storage.settings import read_toml
from keyorbit.training.batch import Batch, Encoded, object_of
from keyorbit.training.config import Lora, Term, Terms, TrainConfig
from keyorbit.training.optimise import Draw
from keyorbit.training.step import TrainingStep, alphas, keypoint_terms, min_snr_weights, velocity
from keyorbit.training.train import train
from keyorbit.training.weights import learning

SMALL = TrainConfig(
    train="full",
    num_tokens=3,
    steps=4,
    batch=2,
    accumulate=1,
    tokens_first=0.0,
    unet_rate=1e-3,
    warmup=1,
    keypoint_timesteps=1000,
    save_every=2,
    log_every=1,
    lora=Lora(rank=2),
)
ALL_TERMS = Terms(equivariance=Term(1.0))


@pytest.fixture
def model(model_folder):
    """One of its own: training changes it."""
    return load_backend(model_folder)


def gradients(model, objects, config, draws):
    """Gradients of the tokens and of what learns in the UNet, summed over the draws."""
    tokens = Tokens.initialise(model.text_statistics(torch.Generator().manual_seed(0)), 3, torch.Generator())
    model.unet.zero_grad()
    with learning(model, config):
        step = TrainingStep(model, objects, tokens, config, config.reading(model, None))
        with step.recording():
            for draw in draws:
                (step(draw)["loss"] / len(draws)).backward()
        assert model.unet.is_gradient_checkpointing == config.checkpointing
        found = {name: p.grad for name, p in model.unet.named_parameters() if p.requires_grad}
    return tokens.embedding.grad, found


@pytest.mark.parametrize("trained", ["tokens", "lora", "full"])
def test_gradient_reaches_what_learns_and_nothing_else(model, objects, trained):
    config = replace(SMALL, train=trained, terms=ALL_TERMS)
    of_tokens, of_unet = gradients(model, objects, config, [Draw(0, 0)])
    assert of_tokens.abs().sum(1).gt(0).all()
    if trained == "tokens":
        assert of_unet == {}
    elif trained == "lora":
        # B is 0 at the start, so A has no gradient yet; adapters on all four projections of both kinds of attention.
        assert all("lora_" in name for name in of_unet)
        last = {name: g for name, g in of_unet.items() if "lora_B" in name}
        assert len(last) == 8 * len(cross_attention_layers(model.unet))
        assert all(g.abs().sum() > 0 for g in last.values())
    else:
        assert sum(g is not None and bool(g.abs().sum() > 0) for g in of_unet.values()) > 0.9 * len(of_unet)
    frozen = [*model.parts.vae.parameters(), *model.parts.text_encoder.parameters()]
    assert all(p.grad is None for p in frozen)


def test_without_keypoint_losses_isolated_training_is_plain_training(model, model_folder, objects):
    """The UNet's gradient is that of v-prediction on the text alone, written out here."""
    config = replace(SMALL, mode="isolated", terms=Terms(keypoint=0.0), dropped=0.0)
    of_tokens, of_unet = gradients(model, objects, config, [Draw(0, 3)])
    assert not of_tokens.any()
    plain = load_backend(model_folder)
    tokens = Tokens(torch.zeros(3, 16))
    batch = TrainingStep(plain, objects, tokens, config, config.reading(plain, None)).load(Draw(0, 3), {})
    plain.unet.requires_grad_(True)
    abar = plain.parts.scheduler.alphas_cumprod[batch.timestep].reshape(-1, 1, 1, 1)
    noised = abar.sqrt() * batch.clean + (1 - abar).sqrt() * batch.noise
    predicted = plain.denoise(noised, batch.timestep, batch.context, batch.condition_latent, batch.condition_noise)
    target = abar.sqrt() * batch.noise - (1 - abar).sqrt() * batch.clean
    torch.nn.functional.mse_loss(predicted, target).backward()
    for name, p in plain.unet.named_parameters():
        torch.testing.assert_close(of_unet[name], p.grad, atol=1e-7, rtol=1e-4)


def test_the_loss_of_the_views_is_that_of_the_grids_that_are_not_warped(model, objects):
    tokens = Tokens(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    step = TrainingStep(model, objects, tokens, SMALL, SMALL.reading(model, None))
    batch = step.load(Draw(0, 3), {"equivariance": 1.0})
    assert [len(example.noise) for example in batch.examples] == [2, 2]
    whole = Warp.identity((6,)).matrix
    for warps in (example.encoded.warps for example in batch.examples):
        assert torch.equal(warps[0], whole)
        assert not torch.allclose(warps[1], whole)
    with torch.no_grad(), step.recording():
        found = step.novel_views(batch)
        for version, counts in ((0, True), (1, False)):
            for item in (0, 1):
                clean = [example.encoded.clean.clone() for example in batch.examples]
                clean[item][version] += 3.0
                pairs = zip(batch.examples, clean, strict=True)
                spoilt = Batch.of([replace(e, encoded=replace(e.encoded, clean=c)) for e, c in pairs])
                assert (abs(step.novel_views(spoilt) - found) > 0.1 * found) == counts
        # The mean over the samples, whatever stands beside them.
        each = torch.stack([step.novel_views(Batch.of([example])) for example in batch.examples])
    torch.testing.assert_close(found, each.mean())


def test_joint_training_differs_from_plain_by_the_keypoint_losses(model, objects):
    _, with_them = gradients(model, objects, SMALL, [Draw(0, 3)])
    _, without = gradients(model, objects, replace(SMALL, terms=Terms(keypoint=0.0)), [Draw(0, 3)])
    name = next(name for name in without if name.endswith("attn2.to_q.weight"))
    assert not torch.allclose(with_them[name], without[name], rtol=1e-3)


def test_a_step_may_be_cut_into_parts(model, objects):
    """Four samples at once, and one by one: the same gradient."""
    whole = replace(SMALL, batch=4, terms=ALL_TERMS)
    of_tokens, of_unet = gradients(model, objects, whole, [Draw(0, 1)])
    of_unet = {name: g.clone() for name, g in of_unet.items() if g is not None}
    parts = [Draw(0, 1, part, 4) for part in range(4)]
    cut_tokens, cut_unet = gradients(model, objects, replace(whole, batch=1), parts)
    torch.testing.assert_close(cut_tokens, of_tokens, atol=1e-6, rtol=1e-3)
    for name, gradient in of_unet.items():
        torch.testing.assert_close(cut_unet[name], gradient, atol=1e-6, rtol=1e-3)


def test_gradient_checkpointing_changes_no_gradient(model, objects):
    of_tokens, of_unet = gradients(model, objects, SMALL, [Draw(0, 0)])
    of_unet = {name: g.clone() for name, g in of_unet.items() if g is not None}
    again_tokens, again = gradients(model, objects, replace(SMALL, checkpointing=True), [Draw(0, 0)])
    torch.testing.assert_close(again_tokens, of_tokens)
    for name, gradient in of_unet.items():
        torch.testing.assert_close(again[name], gradient)


@pytest.mark.parametrize("room", [0, 2**29])
def test_an_object_is_encoded_once_as_far_as_there_is_room(model, objects, room, monkeypatch):
    """What is kept is what would be encoded: the samples are the same."""
    calls, encode = [], Zero123PlusBackend.encode_images
    monkeypatch.setattr(Zero123PlusBackend, "encode_images", lambda *args: calls.append(1) or encode(*args))
    monkeypatch.setattr("keyorbit.training.batch._KEPT_BYTES", room)
    step = TrainingStep(model, objects, Tokens(torch.zeros(3, 16)), SMALL, SMALL.reading(model, None))
    for number in range(6):
        batch = step.load(Draw(0, number), {})
        fresh = TrainingStep(model, objects, step.tokens, SMALL, step.reading)
        made = len(calls)
        expected = fresh.load(Draw(0, number), {})
        del calls[made:]
        for name in ("clean", "noise", "timestep", "condition_latent", "condition_noise", "context"):
            assert torch.equal(getattr(batch, name), getattr(expected, name))
    assert len(calls) == (len(objects) if room else 6 * SMALL.batch)
    step.load(Draw(0, 0), {"equivariance": 1.0})  # warps are other ones in every step
    assert len(calls) == (len(objects) if room else 6 * SMALL.batch) + SMALL.batch


def test_every_object_once_in_each_pass_in_a_new_order():
    passes = [[object_of(0, 7 * epoch + i, 7) for i in range(7)] for epoch in range(3)]
    assert all(sorted(seen) == list(range(7)) for seen in passes)
    assert len({tuple(seen) for seen in passes}) == 3


def test_samples_are_numbered_over_the_run():
    assert [i for part in range(3) for i in Draw(0, 5, part, 3).samples(2)] == list(Draw(0, 5).samples(6))


def test_velocity_and_noise_give_back_the_picture(model, generator):
    """x = sqrt(ᾱ) x_t - sqrt(1 - ᾱ) v: the identity that v is made for."""
    clean, noise = torch.randn(2, 2, 4, 24, 16, generator=generator)
    timestep = torch.tensor([10, 900])
    alpha = alphas(model.parts.scheduler, timestep)
    noised = model.add_noise(clean, noise, timestep)
    restored = alpha.sqrt() * noised - (1 - alpha).sqrt() * velocity(clean, noise, alpha)
    torch.testing.assert_close(restored, clean, atol=1e-5, rtol=1e-5)


def test_min_snr_weights_by_hand():
    alpha = torch.tensor([0.5, 0.9, 0.99]).reshape(-1, 1, 1, 1)  # SNR 1, 9 and 99
    torch.testing.assert_close(min_snr_weights(alpha, 5.0), torch.tensor([1 / 2, 5 / 10, 5 / 100]))
    assert min_snr_weights(alpha, 0.0).tolist() == [1, 1, 1]


def test_a_term_rises_stays_and_moves():
    assert [Term(2.0, start=2, warmup=1).at(step, 10) for step in range(5)] == [0, 0, 1, 2, 2]
    linear = Term(1.0, shape="linear", end=3.0)
    assert [linear.at(step, 5) for step in range(5)] == [1, 1.5, 2, 2.5, 3]
    cosine = Term(1.0, warmup=2, shape="cosine")
    assert [cosine.at(step, 7) for step in (2, 4, 6)] == pytest.approx([1, 0.5, 0])
    assert Terms(keypoint=10.0).at(0, 1) == {"nvs": 1.0, "localization": 5.0, "consistency": 3.0, "geometric": 2.0}
    assert Terms(keypoint=0.0).at(0, 1) == {"nvs": 1.0}


def example(points, cameras, warps):
    xy = Warp(warps).apply(cameras.project(points)[None].expand(len(warps), -1, -1, -1))
    heatmaps = normalize(gaussian(xy, 32, 32, 1.5))
    nothing = torch.zeros(len(warps), 4, 24, 16)
    condition = Condition(nothing, torch.zeros(len(warps), 77, 16))
    everywhere = torch.ones(len(warps), 6, 32, 32)
    return heatmaps, Encoded(nothing, condition, warps, everywhere, 1 - everywhere[0], cameras)


def test_planted_points_cost_little_and_each_fault_its_own_term(backend):
    reading = SMALL.reading(backend, None)
    shift = torch.tensor([[1.0, 0, 0.1], [0, 1.0, 0]])
    warps = torch.stack([Warp.identity((6,)).matrix, shift.expand(6, 2, 3)])
    corners = 0.2 * torch.tensor([[1.0, 1, 1], [-1, -1, 1], [1, -1, -1]])
    maps, seen = example(corners, backend.cameras, warps)
    good = keypoint_terms(seen, maps, reading, True)
    assert good["consistency"] < 1e-5
    assert good["geometric"] == 0
    assert good["equivariance"] < 1e-4
    together = keypoint_terms(seen, example(0 * corners, backend.cameras, warps)[0], reading, True)
    assert together["geometric"] > 0.5
    stuck = keypoint_terms(seen, maps[:1].expand_as(maps), reading, True)
    assert stuck["equivariance"] > 10 * good["equivariance"]
    turned = keypoint_terms(seen, maps.roll(1, dims=1), reading, True)
    assert turned["consistency"] > 0.01
    flat = keypoint_terms(seen, torch.full_like(maps, 1 / 32**2), reading, True)
    assert flat["localization"] > 10 * good["localization"]


def test_training_lowers_both_losses(model, objects, tmp_path):
    found = []
    config = replace(SMALL, steps=30, token_rate=0.05, temperature=0.05, timesteps=(300, 301), dropped=0.0)
    train(model, objects, config, tmp_path, report=lambda done, steps, terms: found.append(terms))
    for name in ("nvs", "keypoint"):
        values = [terms[name] for terms in found]
        assert sum(values[-6:]) < 0.95 * sum(values[:6]), name


def test_tokens_learn_first(model, objects, tmp_path):
    before = {name: p.clone() for name, p in model.unet.named_parameters()}
    config = replace(SMALL, tokens_first=1.0)
    start = Tokens(torch.randn(3, 16))
    found = train(model, objects, config, tmp_path, start)
    assert all(torch.equal(before[name], p) for name, p in model.unet.named_parameters())
    assert not torch.equal(found.embedding, start.embedding)


def test_the_constellation_of_the_start_stays_and_its_helpers_go(model, objects, tmp_path):
    places = tuple((0.1 * i, 0.0, 0.2) for i in range(5))
    form = ((0.0, 0.1, 0.2), (0.3, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.5))
    start = Tokens(torch.randn(3, 16), TokensInfo(places=places, form=form), torch.randn(2, 16))
    found = train(model, objects, replace(SMALL, train="tokens", steps=1), tmp_path, start)
    assert found.info.places == places[:3]
    assert found.info.form == form
    assert len(found.helpers) == 0
    read = KeypointDetector(model, found, DetectConfig(space="constellation")).detect_object(objects[0])
    assert read.keypoints_3d.xyz.shape == (3, 3)


@pytest.mark.parametrize("trained", ["tokens", "lora", "full"])
def test_the_result_loads_everywhere(model, model_folder, objects, tmp_path, trained):
    config = replace(SMALL, train=trained, sample_every=2, sample_steps=1)
    tokens = train(model, objects, config, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("samples_*")) == ["samples_0000002.png", "samples_0000004.png"]
    stored = Tokens.load(tmp_path / "tokens.safetensors")
    assert torch.equal(stored.embedding, tokens.embedding)
    loaded = load_backend(stored.info.model)
    assert KeypointDetector(loaded, stored).detect_object(objects[0]).keypoints_2d.xy.isfinite().all()
    own, ours = model.unet.state_dict(), loaded.unet.state_dict()
    assert own.keys() == ours.keys()
    assert all(torch.equal(own[name], ours[name]) for name in own)
    if trained == "tokens":
        assert stored.info.model == str(model_folder)
        return
    plain = load_backend(model_folder).unet
    assert any(not torch.equal(plain.state_dict()[name], ours[name]) for name in ours)
    if trained == "lora":
        plain = UNet2DConditionModel.from_pretrained(model_folder / "unet")
        plain.load_lora_adapter(tmp_path / "lora", prefix="unet", use_safetensors=True)
        latents, context = torch.ones(1, 4, 24, 16), torch.ones(1, 77, 16)
        merged = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
        with torch.no_grad():
            adapted, expected = (unet(latents, 10, context).sample for unet in (plain, merged))
        torch.testing.assert_close(adapted, expected, atol=1e-5, rtol=1e-4)


def command(chairs, model, out, *words):
    options = ["--train", "full", "--tokens", 3, "--batch", 1, "--accumulate", 2, "--save-every", 2]
    words = ["train", chairs, "--model", model, "--out", out, *options, *words]
    return [sys.executable, "-m", "keyorbit", *map(str, words)]


def test_a_killed_run_resumes_bit_identical(chairs, model_folder, tmp_path, run_here):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    with open(tmp_path / "said.txt", "w") as said:
        running = subprocess.Popen(command(chairs, model_folder, killed, "--steps", 16), env=environment, stderr=said)
    try:
        deadline = time.monotonic() + 300
        while not (killed / "train.safetensors").exists():
            assert running.poll() is None, (tmp_path / "said.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    _, metadata = load_checkpoint(killed / "train.safetensors")
    assert 0 < metadata["step"] < 16
    resume = command(chairs, model_folder, killed, "--steps", 16, "--resume")
    run_here(resume[3:])
    run_here(command(chairs, model_folder, whole, "--steps", 16)[3:])
    (resumed, about), (unbroken, expected) = (
        load_checkpoint(folder / "train.safetensors") for folder in (killed, whole)
    )
    assert about == expected
    assert resumed.keys() == unbroken.keys()
    assert all(torch.equal(value, resumed[key]) for key, value in unbroken.items())
    file = "model/unet/diffusion_pytorch_model.safetensors"
    assert (killed / file).read_bytes() == (whole / file).read_bytes()


def test_two_processes_are_a_batch_of_two(chairs, model_folder, tmp_path, run_here):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = ["--steps", 1, "--accumulate", 1]
    two = launch + command(chairs, model_folder, tmp_path / "two", *words)[2:]
    done = subprocess.run(two, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run_here(command(chairs, model_folder, tmp_path / "one", *words, "--cpu", "--batch", 2)[3:])
    checkpoints = [load_checkpoint(tmp_path / name / "train.safetensors") for name in ("one", "two")]
    assert [metadata["settings"]["processes"] for _, metadata in checkpoints] == [1, 2]
    found = [tensors for tensors, _ in checkpoints]
    # The optimizer's first moment is the gradient, times a constant.
    moments = [key for key in found[0] if key.endswith("exp_avg")]
    assert len(moments) > 100
    for key in moments:
        torch.testing.assert_close(found[1][key], found[0][key], atol=1e-6, rtol=1e-3)
    logs = [json.loads((tmp_path / n / "log.jsonl").read_text()) for n in ("one", "two")]
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-3)


def test_a_process_that_is_gone_is_named_and_the_checkpoint_stays(model, objects, tmp_path, monkeypatch):
    real, steps = Accelerator.reduce, []

    def gone(*args):
        steps.append(1)
        if len(steps) > 2:
            raise RuntimeError("Connection closed by peer")
        return real(*args)

    monkeypatch.setattr(Accelerator, "reduce", gone)
    with pytest.raises(InputError, match="another process of this run is gone"):
        train(model, objects, replace(SMALL, train="tokens", save_every=1), tmp_path)
    assert load_checkpoint(tmp_path / "train.safetensors")[1]["step"] == 2


def test_the_last_checkpoints_are_kept(model, objects, tmp_path):
    train(model, objects, replace(SMALL, train="tokens", steps=5, save_every=1, keep=2), tmp_path)
    kept = sorted((tmp_path / "train").iterdir())
    assert [load_checkpoint(path)[1]["step"] for path in kept] == [3, 4, 5]
    assert load_checkpoint(tmp_path / "train.safetensors")[1]["step"] == 5


def test_a_run_of_other_settings_is_not_resumed(model, objects, tmp_path):
    config = replace(SMALL, train="tokens", steps=1)
    before = copy(model)
    before.fingerprint = model.older_fingerprint()  # as an earlier version wrote it
    train(before, objects, config, tmp_path)
    with pytest.raises(InputError, match="already"):
        train(model, objects, config, tmp_path)
    with pytest.raises(InputError, match="dropped"):
        train(model, objects, replace(config, dropped=0.5), tmp_path, resume=True)
    # What only watches may change.
    train(model, objects, replace(config, save_every=7), tmp_path, resume=True)


@pytest.mark.parametrize("falls", [False, True])
def test_a_run_goes_on_to_more_steps(falls, model, objects, tmp_path, caplog):
    """As if it had had them from the start, where nothing depends on their number before the rate falls."""
    temperatures = {} if falls else {"temperature": 0.02, "start_temperature": 0.02}
    short = replace(SMALL, train="tokens", steps=4, cooldown=0.25, warmup=1, save_every=1, log_every=1, **temperatures)
    longer = replace(short, steps=9)

    def stop(done, steps, terms):
        if done == (4 if steps == 4 else 6):
            raise KeyboardInterrupt

    for config in (short, longer):  # stopped at step 3, before the rate has begun to fall, and again on the longer way
        with pytest.raises(KeyboardInterrupt):
            train(model, objects, config, tmp_path / "run", resume=config is longer, report=stop)
    (told,) = [record.message for record in caplog.records if "goes on to" in record.message]
    assert "goes on to 9 steps instead of 4: rates and weights of losses are from here on those of a run of 9" in told
    kept = read_toml(tmp_path / "run" / "config.toml", TrainConfig)
    assert kept == longer
    with pytest.raises(InputError, match=r"5 steps are done, so the run cannot have 4: give 5 or more"):
        train(model, objects, short, tmp_path / "run", resume=True)
    tokens = train(model, objects, kept, tmp_path / "run", resume=True)
    whole = train(model, objects, longer, tmp_path / "whole")
    assert torch.equal(tokens.embedding, whole.embedding) is not falls
    logs = [[json.loads(line)["step"] for line in (tmp_path / run / "log.jsonl").read_text().splitlines()]
            for run in ("run", "whole")]  # fmt: skip
    assert logs[0] == logs[1] == list(range(1, 10))
    # A finished run goes on too.
    train(model, objects, replace(longer, steps=10), tmp_path / "run", resume=True)
    assert load_checkpoint(tmp_path / "run" / "train.safetensors")[1]["step"] == 10


def test_what_cannot_be_trained_is_refused(model, objects, tmp_path, stable_diffusion):
    endless = Term(1.0)
    object.__setattr__(endless, "weight", math.inf)  # which no settings allow
    cases = [
        (stable_diffusion, objects, SMALL, "single view"),
        (model, [], SMALL, "no objects"),
        (model, [ObjectViews("mug", objects[0].input_image)], SMALL, "mug has no views"),
        (model, objects, replace(SMALL, tracker="wandb"), "pip install wandb"),
        (model, objects, replace(SMALL, precision="fp16"), "precision fp16"),
        (model, objects, replace(SMALL, train="lora", lora=Lora(layers=("to_z",))), "to_z"),
        (model, objects, replace(SMALL, train="tokens", terms=Terms(nvs=endless)), "no number any more"),
    ]
    for backend, things, config, words in cases:
        with pytest.raises(InputError, match=words):
            train(backend, things, config, tmp_path / "out")
        assert not (tmp_path / "out" / "train.safetensors").exists()
        assert "number" in words or not (tmp_path / "out").exists()


def test_a_tracker_gets_the_losses(chairs, model_folder, tmp_path, run_here):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "often.toml").write_text("log_every = 1")
    words = ["--train", "tokens", "--steps", 3, "--config", tmp_path / "often.toml"]
    for tracker in ("tensorboard", "none"):
        run_here(command(chairs, model_folder, tmp_path / tracker, *words, "--tracker", tracker)[3:])
    assert not (tmp_path / "none" / "keyorbit").exists()
    logged = [json.loads(line) for line in (tmp_path / "tensorboard" / "log.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(tmp_path / "tensorboard" / "keyorbit")).Reload()
    for name in ("loss", "nvs", "keypoint"):
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx({line["step"]: line[name] for line in logged})
