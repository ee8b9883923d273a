"""StableKeypoints as published: the same tokens on the same maps, the same loss and gradient, and whole runs."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.detection.averages import averaged_as_published
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.prepare import prepare, prepare_together
from keyorbit.discovery import published, single_view_run
from keyorbit.discovery.choices import Published
from keyorbit.discovery.config import DiscoverConfig, preset_config
from keyorbit.discovery.discover import discover, start_run
from keyorbit.discovery.live import open_live
from keyorbit.discovery.objective import chosen_in, single_view_objective
from keyorbit.discovery.weights import SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.evaluation.evaluate import detect_each
from keyorbit.evaluation.protocol import score
from keyorbit.geometry.heatmaps import argmax_xy, normalize, subject_peaks
from keyorbit.geometry.warps import Warp, random_warps
from keyorbit.objects.dataset import ObjectViews
from keyorbit.ranks import Ranks
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint
from oracles import attention as watched
from oracles import published as oracle
from oracles import stable_keypoints

EVERY = get_args(Published)


def attention(tokens, side, seed=0, spots=3):
    """Maps as attention is, 0…1: some spots of any height and width on an uneven ground."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    maps = 0.02 * generator.random((tokens, side, side))
    for one in maps:
        for _ in range(spots):
            i, j, width = generator.integers(side), generator.integers(side), generator.uniform(1, 5)
            heat = np.exp(-((rows - i) ** 2 + (columns - j) ** 2) / (2 * width**2))
            one += 0.9 * generator.random() ** 3 * heat
    return torch.from_numpy(maps.clip(0, 1)).float()


@pytest.mark.parametrize(
    ("strategy", "subjects"), [("gaussian", 1), ("gaussian", 3), ("entropy", 1), ("consistent", 1)]
)
def test_the_same_tokens_are_chosen_on_the_same_maps(strategy, subjects):
    maps, moved = attention(90, 64), attention(90, 64, seed=1)
    pool = published.candidates(maps, 25, strategy, 2.0, subjects).tolist()
    expected = oracle.best(maps.numpy(), 25, strategy, 2.0, subjects)
    assert pool == expected  # 25 of 25, in order
    weights = SingleViewWeights(subjects=subjects, strategy=strategy)
    chosen = chosen_in(maps, moved, weights, 10, ("ranking", "pair")).tolist()
    assert chosen == oracle.apart(moved.numpy(), 10, expected)  # 10 of 10
    if strategy == "gaussian" and subjects == 1:
        # Our own choices are others.
        assert len({*chosen_in(maps, moved, weights, 10).tolist()} & {*chosen}) < 10


@pytest.mark.parametrize("count", [1, 2, 5])
def test_furthest_points_from_a_pair(count):
    places = torch.tensor([[0.5, 0.5], [0.1, 0.1], [0.9, 0.9], [0.1, 0.9], [0.5, 0.4]])
    assert (
        published.furthest_from_pair(places, count, torch.tensor([0, 2, 1, 3, 4])).tolist() == [2, 1, 3, 0, 4][:count]
    )
    with pytest.raises(ValueError, match="cannot be chosen"):
        published.furthest_from_pair(places, 3, torch.tensor([0, 1]))
    assert published.furthest_from_pair(places, 1, torch.tensor([3])).tolist() == [3]


def test_peaks_of_several_subjects_keep_apart():
    maps = attention(4, 60)
    found = subject_peaks(maps, 3)
    expected = [[(i + 0.5) / 60 for i in reversed(peak)] for peak in oracle.peaks(maps[2].numpy(), 3)]
    np.testing.assert_allclose(found[:, 2].numpy(), expected, atol=1e-6)
    with pytest.raises(ValueError, match="1 or more"):
        subject_peaks(maps, 0)


@pytest.mark.parametrize("subjects", [1, 2])
def test_loss_and_gradient_are_the_published(subjects):
    drawn = oracle.theta(11.0, 0.85, (0.2, -0.13))
    warps = torch.stack([torch.eye(2, 3).double(), oracle.unit_square(drawn)])[None, :, None]
    pictures = torch.stack([attention(40, 48), attention(40, 48, seed=1)]).double().requires_grad_()
    weights, choices = SingleViewWeights(subjects=subjects), ("ranking", "pair", "pixels")
    ours = single_view_objective(pictures[None, :, None], warps, weights, 10, choices)
    (gradient,) = torch.autograd.grad(ours["total"], pictures)
    pool = oracle.best(pictures[0].detach().numpy(), 25, "gaussian", 2.0, subjects)
    chosen = oracle.apart(pictures[1].detach().numpy(), 10, pool)
    sharp, same, total = oracle.loss(pictures[0], pictures[1], drawn, chosen, 2.0, subjects)
    (expected,) = torch.autograd.grad(total, pictures)
    found = [ours["sharpening"].item(), ours["equivariance"].item(), ours["total"].item()]
    assert found == pytest.approx([sharp.item(), same.item(), total.item()], rel=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    # Without what the warp leaves out, or with the best token first, it is another.
    for left in ("pixels", "ranking"):
        fewer = [choice for choice in choices if choice != left]
        other = single_view_objective(pictures[None, :, None], warps, weights, 10, fewer)
        assert subjects > 1 or other["total"].item() != pytest.approx(total.item(), rel=1e-3)


def test_votes_decide():
    pictures = [[3, 1, 4], [1, 5, 9], [2, 6, 5], [3, 5, 8]]
    assert published.voted([torch.tensor(one) for one in pictures], 3).tolist() == [5, 1, 3]
    assert published.voted(torch.tensor(pictures), 3).tolist() == oracle.most_voted(pictures, 3)
    assert published.voted([torch.tensor([7])], 3).tolist() == [7]


def test_warps_are_drawn_from_the_warped_picture_back(generator):
    """Uniform angle, scale 0.8 to 1 and shift up to 0.25 in [-1, 1] of theta, whose picture is black outside."""
    made = random_warps((4000,), generator, 15.0, (1.0, 1.25), 0.125, backwards=True)
    whole = torch.cat([made.matrix.double(), torch.tensor([[[0, 0, 1.0]]]).double().expand(4000, 1, 3)], 1)
    centred = torch.tensor([[2, 0, -1.0], [0, 2, -1], [0, 0, 1]]).double()
    drawn = (centred @ whole.inverse() @ centred.inverse())[:, :2]
    scale = drawn[:, 0, :2].norm(dim=1)
    angle = torch.atan2(drawn[:, 0, 1], drawn[:, 0, 0]).rad2deg()
    for values, low, high in (
        (scale, 0.8, 1.0),
        (angle, -15, 15),
        (drawn[:, 0, 2], -0.25, 0.25),
        (drawn[:, 1, 2], -0.25, 0.25),
    ):
        assert low - 1e-5 <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-5
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    same = oracle.unit_square(oracle.theta(float(angle[0]), float(scale[0]), drawn[0, :, 2].tolist()))
    torch.testing.assert_close(same.float(), made.matrix[0], atol=1e-5, rtol=0)


def test_detection_averages_the_warped_versions_at_the_pictures_size():
    drawn = [
        oracle.theta(10.0, 0.9, (0.1, 0.2)),
        oracle.theta(-7.0, 0.8, (-0.2, 0.0)),
        oracle.theta(3.0, 1.0, (0.0, 0.1)),
    ]
    maps = torch.stack([attention(3, 32, seed) for seed in range(4)])[:, None]
    warps = torch.stack([torch.eye(2, 3), *(oracle.unit_square(one).float() for one in drawn)])[:, None]
    made = averaged_as_published(maps, Warp(warps), 1, 128)
    for token, (x, y) in enumerate(argmax_xy(normalize(made))[0].tolist()):
        assert (y, x) == pytest.approx(oracle.place(maps[1:, 0, token], drawn, 128), abs=1e-6)
    # There is nothing else without warps.
    alone = averaged_as_published(maps[:1], Warp(warps[:1]), 1, 32)
    torch.testing.assert_close(alone, maps[0])


KINDS = {
    "celeba-wild": ("inter_eye_distance", 5, 100),
    "cub-all": ("visible", 15, 100),
    "taichi": ("mean_average_error", 18, 1),
    "deepfashion": ("pck", 8, 100),
    "human3.6m": ("orientation_invariant", 32, 1),
    "unaligned-human3.6m": ("orientation_invariant", 32, 1),
}


@pytest.mark.parametrize("dataset", KINDS)
def test_the_five_scores_are_the_published(dataset):
    kind, count, factor = KINDS[dataset]
    generator = np.random.default_rng(3)
    x = generator.random((160, 10, 2))
    linear = 0.2 * generator.normal(size=(20, 2 * count))
    y = ((x.reshape(160, -1) - 0.5) @ linear + 0.5).reshape(160, count, 2) + 0.01 * generator.normal(
        size=(160, count, 2)
    )
    seen = np.ones((160, count), bool)
    if kind in ("visible", "mean_average_error"):
        seen = generator.random((160, count)) > 0.2
    if kind == "mean_average_error":
        seen[150] = False
    if kind == "orientation_invariant":
        y[:40] = oracle.other_side(y[:40])
        y[120:140] = oracle.other_side(y[120:140])
    fit, test = slice(0, 100), slice(100, 160)
    arrays = [part for rows in (fit, test) for part in (x[rows], y[rows], seen[rows])]
    ours = score(dataset, *map(torch.from_numpy, arrays))
    assert ours == pytest.approx(factor * oracle.score(kind, *arrays), rel=1e-7)


@pytest.fixture(autouse=True)
def few_voters(monkeypatch):
    """A hundred pictures take their time."""
    assert single_view_run.VOTERS == 100
    monkeypatch.setattr(single_view_run, "VOTERS", 3)


@pytest.fixture(scope="module")
def pictures():
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    return [ObjectViews(f"picture{i}", Image.fromarray(one)) for i, one in enumerate(pixels)]


SMALL = replace(preset_config("stablekeypoints"), num_tokens=3, num_candidates=9, steps=3, batch=2, map_size=24)


def test_the_preset_has_the_published_numbers():
    found = preset_config("stablekeypoints")
    assert (found.num_tokens, found.num_candidates, found.steps, found.batch) == (10, 500, 500, 4)
    assert (found.rate, found.map_size, found.maps, found.mode) == (5e-3, 128, "stablekeypoints", "alone")
    assert found.published == EVERY
    assert (found.prepare.warps, found.prepare.noises, found.prepare.rotation_deg) == (1, 1, 15.0)
    # Of the map from output to input in [-1, 1], as the original counts: scales 0.8 to 1, shifts up to 0.25.
    assert (found.prepare.scale, found.prepare.shift) == ((1 / 1.0, 1 / 0.8), 0.25 / 2)
    assert found.single_view == SingleViewWeights(100.0, 1000.0, 2.0, 1, "gaussian")
    assert preset_config("keyorbit") == DiscoverConfig()


def test_a_step_is_the_published_one(stable_diffusion, pictures):
    """The UNet itself with tokens as its whole context, watched by hooks, and the oracle's loss: the same total."""
    settled = SMALL.settled(stable_diffusion)
    source = open_live(stable_diffusion, pictures, settled, Ranks())
    run = start_run(source, settled, Ranks())
    tokens = run.tokens.embedding.detach().clone()
    totals = []
    for number in run.picked(0):
        thing, generator = source.draw(number)
        ((shown, _),) = prepare_together([thing], stable_diffusion, settled.prepare, [generator])
        context, latent = tokens.expand(2, -1, -1), tuple(shown.latents.shape[-2:])
        with torch.no_grad():
            seen, handles = watched.watch(stable_diffusion.unet)
            stable_diffusion.unet(shown.latents, shown.timestep, context)
            for handle in handles:
                handle.remove()
            maps, moved = stable_keypoints.attention_map(seen, context, latent, (24, 24))
        whole = torch.cat([shown.warps[1, 0].double(), torch.tensor([[0, 0, 1.0]]).double()])
        centred = torch.tensor([[2, 0, -1.0], [0, 2, -1], [0, 0, 1]]).double()
        drawn = (centred @ whole.inverse() @ centred.inverse())[:2]
        chosen = oracle.apart(moved.numpy(), 3, oracle.best(maps.numpy(), 8, "gaussian", 2.0, 1))
        totals.append(oracle.loss(maps, moved, drawn, chosen, 2.0, 1)[2].item())
    # Of a random model all maps are nearly equal; were it not the same tokens, the total would still differ.
    assert run.step(0)["total"].item() == pytest.approx(np.mean(totals), rel=1e-5)
    # Adam's first step is the rate in the direction of the gradient.
    moves = (run.tokens.embedding.detach() - tokens).abs()
    assert moves.max() == pytest.approx(5e-3, rel=1e-2)
    run.step(2)
    assert run.optimizer.param_groups[0]["lr"] == 5e-3  # it does not fall


def test_tokens_begin_with_mean_0_and_variance_1(stable_diffusion, pictures):
    config = replace(SMALL, num_candidates=400).settled(stable_diffusion)
    start = start_run(open_live(stable_diffusion, pictures, config, Ranks()), config, Ranks()).tokens.embedding
    assert abs(start.mean()) < 0.05
    assert abs(start.std() - 1) < 0.05


def test_pictures_come_in_shuffled_passes_and_are_drawn_anew(stable_diffusion, pictures):
    source = open_live(stable_diffusion, pictures, SMALL.settled(stable_diffusion), Ranks())
    passes = [[source.draw(3 * i + j)[0].name for j in range(3)] for i in range(8)]
    assert all({*names} == {thing.name for thing in pictures} for names in passes)
    assert len({*map(tuple, passes)}) > 1
    tokens = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    first = source.maps(0, tokens)[0].maps
    warps = source.shown(0).warps
    source.maps(3, tokens)
    assert torch.equal(warps[0], source.shown(3).warps[0])
    assert not torch.equal(warps[1], source.shown(3).warps[1])
    assert torch.equal(source.maps(0, tokens)[0].maps, first)
    assert len(source.recent) <= 2


def test_what_comes_from_outside_a_warped_picture_is_black(stable_diffusion, generator):
    white = ObjectViews("white", Image.new("RGB", (32, 32), "white"))
    drawn = []
    for backwards in (True, False):
        config = PrepareConfig(warps=8, shift=0.4).settled(0, published=backwards)
        prepared, _, _ = prepare(white, stable_diffusion, config, torch.Generator().manual_seed(0))
        drawn.append(prepared)
    assert [one.warps.shape[0] for one in drawn] == [9, 9]
    assert not torch.equal(drawn[0].warps, drawn[1].warps)


def test_a_run_of_the_preset_goes_on_as_if_it_had_never_stopped(stable_diffusion, pictures, tmp_path):
    config = replace(SMALL, save_every=1)
    whole = discover(stable_diffusion, pictures, config)
    stopped = discover(stable_diffusion, pictures, config, tmp_path / "run", watch=lambda done, tokens: done < 2)
    assert not torch.equal(stopped.embedding, whole.embedding)
    again = discover(stable_diffusion, pictures, config, tmp_path / "run", resume=True)
    assert torch.equal(again.embedding, whole.embedding)
    assert torch.equal(again.helpers, whole.helpers)
    assert (len(whole), len(whole.helpers), whole.info.mode) == (3, 6, "alone")


def test_a_checkpoint_without_the_newer_settings_is_gone_on_with(stable_diffusion, pictures, tmp_path):
    config = DiscoverConfig(num_tokens=2, num_candidates=3, steps=2, batch=2, save_every=1)
    discover(stable_diffusion, pictures, config, tmp_path / "run", watch=lambda done, tokens: False)
    path = tmp_path / "run" / "checkpoint.safetensors"
    tensors, about = load_checkpoint(path)
    del about["settings"]["published"], about["settings"]["single_view"]["subjects"]
    del about["settings"]["single_view"]["strategy"]
    save_checkpoint(path, tensors, about, digest=True)
    assert len(discover(stable_diffusion, pictures, config, tmp_path / "run", resume=True)) == 2
    other = replace(config, single_view=SingleViewWeights(subjects=2))
    with pytest.raises(InputError, match=r"other settings \(single_view.subjects\)"):
        discover(stable_diffusion, pictures, other, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    ("mode", "choices"), [("isolated", ("draws",)), ("alone", ()), ("isolated", ("ranking", "votes")), ("joint", EVERY)]
)
def test_modes_and_choices_go_together_in_any_way(stable_diffusion, pictures, mode, choices):
    found = discover(stable_diffusion, pictures, replace(SMALL, steps=1, published=choices, mode=mode))
    assert len(found) == 3
    assert found.info.settings["published"] == list(choices)


def test_detection_reads_the_tokens_as_the_models_context(stable_diffusion, pictures):
    tokens = discover(stable_diffusion, pictures, replace(SMALL, steps=1))
    detector = KeypointDetector(stable_diffusion, tokens, DetectConfig(noises=1, warps=3))
    assert detector.peak == "argmax"
    found = detector.detect_object(pictures[0])
    assert found.heatmaps.shape[-1] == stable_diffusion.view_size
    # The maps are those of the UNet with all tokens, also those that were not kept.
    recording = detector.record(pictures[0])
    seen, handles = watched.watch(stable_diffusion.unet)
    everyone = torch.cat([tokens.embedding.detach(), tokens.helpers])
    ((shown, _),) = prepare_together(
        [pictures[0]], stable_diffusion, detector.recording.prepare, [torch.Generator().manual_seed(0)]
    )
    with torch.no_grad():
        stable_diffusion.unet(shown.latents, shown.timestep, everyone.expand(4, -1, -1))
    for handle in handles:
        handle.remove()
    with torch.no_grad():
        expected = stable_keypoints.attention_map(
            seen, everyone.expand(4, -1, -1), tuple(shown.latents.shape[-2:]), (24, 24)
        )
    made = detector._heatmaps(recording, "grid", stable_diffusion.layout)[:, 0]
    torch.testing.assert_close(made, expected[:, :3], atol=1e-5, rtol=0)
    # Another detector's tokens are another context.
    others = KeypointDetector(stable_diffusion, discover(stable_diffusion, pictures, SMALL), detector.config)
    with pytest.raises(InputError, match="other tokens"):
        others.read(recording)
    both = detect_each({"a": detector, "b": others}, pictures[:1])
    assert torch.equal(both["a"][0].keypoints_2d.xy, found.keypoints_2d.xy)


def test_several_views_are_pictures_of_their_own(backend, chairs):
    """Of a model with cameras, tokens are found as on single views; detection still has points in space."""
    from keyorbit.objects.dataset import load_dataset

    objects = load_dataset(chairs)
    tokens = discover(backend, objects, replace(SMALL, steps=1))
    assert not tokens.info.places
    found = KeypointDetector(backend, tokens, DetectConfig(noises=1)).detect_object(objects[0])
    assert found.keypoints_3d is not None
    assert math.isfinite(float(found.keypoints_3d.xyz.sum()))
