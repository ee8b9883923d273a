"""The query cache is exact, the objective means what it says, and a stopped run ends as if it had not stopped."""

from dataclasses import replace

import pytest
import torch

from keyorbit.detection.detector import DetectConfig, KeypointDetector, averaged, near
from keyorbit.detection.peaks import peak_score, peak_xy
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.prepare import object_generator, prepare
from keyorbit.diffusion.recording import joined, record, unet_maps
from keyorbit.discovery import run as discover_run
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.discovery.initial import untrained
from keyorbit.discovery.objective import LossWeights, Observed, objective
from keyorbit.errors import InputError
from keyorbit.geometry.heatmaps import gaussian, normalize
from keyorbit.geometry.hull import beside_silhouette, silhouette_distance, silhouettes
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.warps import Warp, inside, random_warps, unwarp
from keyorbit.objects.dataset import load_dataset
from keyorbit.synthetic.dataset import make_dataset

SMALL = DiscoverConfig(
    num_tokens=3, num_candidates=5, steps=6, batch=2, prepare=PrepareConfig(warps=1), save_every=2, planting=5
)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder, "chair", 3, seed=1, size=16)
    return load_dataset(folder)


@pytest.mark.parametrize(
    ("method", "asked", "expected"),
    [
        ("constellation", PrepareConfig(), (0, 3)),
        ("consistency", PrepareConfig(), (2, 1)),
        ("constellation", PrepareConfig(warps=1), (1, 1)),
        ("constellation", PrepareConfig(noises=2), (0, 2)),
        ("consistency", PrepareConfig(warps=0, noises=4), (0, 4)),
    ],
)
def test_what_was_not_asked_for_suits_the_method(backend, method, asked, expected):
    settled = DiscoverConfig(method=method, prepare=asked).settled(backend).prepare
    assert (settled.warps, settled.noises) == expected
    assert settled.versions == (1 + expected[0]) * expected[1]


@pytest.mark.parametrize("kind", ["logits", "attention"])
def test_the_cache_gives_the_unets_own_maps(backend, objects, kind):
    config = RecordConfig(("*",), kind, SMALL.prepare.settled(300))
    tokens = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    recordings = [record(thing, backend, config, object_generator(0, i)) for i, thing in enumerate(objects)]
    cached = joined(recordings).maps(tokens, torch.tensor([2, 3]), kind)  # the second object's two versions
    item, _, _ = prepare(objects[1], backend, config.prepare, object_generator(0, 1))
    with torch.no_grad():
        direct = unet_maps(backend, [item], tokens, "*", "isolated", kind)
    if kind == "attention":
        for ours, theirs in zip(cached, direct, strict=True):
            torch.testing.assert_close(ours.maps.mean(1, keepdim=True), theirs.maps, atol=1e-6, rtol=1e-4)
    else:
        for ours in cached:
            same = [layer.maps.mean(1) for layer in direct if layer.size == ours.size]
            expected = torch.stack(same).sum(0) * len(cached) / len(direct)
            torch.testing.assert_close(ours.maps[:, 0], expected, atol=1e-5, rtol=1e-4)


def test_an_objects_silhouettes_are_resized_once(backend, objects, monkeypatch):
    resized, real = [], discover_run.grown_masks
    monkeypatch.setattr(discover_run, "grown_masks", lambda *args: resized.append(1) or real(*args))
    discover(backend, objects, SMALL)
    assert len(resized) == len(objects)


def planted(points, warps, side=32, sigma=1.5):
    """Gaussians where known 3D points are seen, in views warped by ``warps [object version view 2 3]``."""
    xy = zero123plus_cameras().project(points)[:, None]
    seen = Warp(warps).apply(xy.expand(*warps.shape[:3], *xy.shape[-2:]))
    heatmaps = normalize(gaussian(seen, side, side, sigma))
    nowhere = torch.zeros(len(warps), 6, side, side)
    return Observed(heatmaps, warps, torch.ones(*warps.shape[:3], side, side), nowhere)


def test_planted_points_cost_nothing_and_moved_ones_do(generator):
    points = 0.5 * torch.rand(2, 4, 3, generator=generator) - 0.25
    identity = Warp.identity((2, 1, 6)).matrix
    warps = torch.cat([identity, random_warps((2, 2, 6), generator, 10.0, (0.9, 1.0), 0.05).matrix], 1)
    seen = planted(points, warps)
    cameras, weights = zero123plus_cameras(), LossWeights()
    assert objective(seen, cameras, weights)["geometric"] < 1e-6
    # The same pixel in every view is not the same point of a turning object.
    same_place = seen.heatmaps[:, :, :1].expand_as(seen.heatmaps)
    moved = Observed(same_place, warps, seen.masks, seen.distance)
    assert objective(moved, cameras, weights)["geometric"] > 1e-3


def test_tokens_all_in_one_place_are_pushed_apart(generator):
    warps = Warp.identity((1, 1, 6)).matrix
    together = objective(planted(torch.zeros(1, 4, 3), warps), zero123plus_cameras(), LossWeights())
    corners = 0.3 * torch.tensor([[[1.0, 1, 1], [-1, -1, 1], [1, -1, -1], [-1, 1, -1]]])
    apart = objective(planted(corners, warps), zero123plus_cameras(), LossWeights())
    assert apart["separation"] == 0
    assert together["separation"] > 0.9 * LossWeights().margin ** 2


def test_discovery_lowers_its_objective(backend, objects):
    totals = []
    config = replace(SMALL, method="consistency", steps=30, start_temperature=0.05, temperature=0.05)
    discover(backend, objects, config, report=lambda s, i, n, v: totals.append(v.get("total")))
    totals = [total for total in totals if total is not None]
    assert sum(totals[-5:]) < 0.95 * sum(totals[:5])


@pytest.mark.parametrize("method", ["constellation", "consistency"])
def test_a_stopped_run_resumes_bit_identical(backend, objects, tmp_path, method):
    config = replace(SMALL, method=method)
    whole = discover(backend, objects, config)

    def stop(stage, done, total, values):
        if stage == "step" and done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover(backend, objects, config, tmp_path, report=stop)
    resumed = discover(backend, objects, config, tmp_path, resume=True)
    assert torch.equal(resumed.embedding, whole.embedding)
    assert resumed.info == whole.info
    with pytest.raises(InputError, match="seed"):
        discover(backend, objects, replace(config, seed=1), tmp_path, resume=True)


def test_the_seed_decides_and_the_global_generator_is_left_alone(backend, objects):
    state = torch.get_rng_state()
    config = replace(SMALL, steps=2)
    first, again, other = (discover(backend, objects, replace(config, seed=s)).embedding for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_joint_mode_moves_the_tokens_through_the_unet(backend, objects):
    config = replace(SMALL, mode="joint", steps=1, num_candidates=3)
    moved, start = discover(backend, objects, config), untrained(backend, config)
    assert not torch.equal(moved.embedding.sort(0).values, start.embedding.sort(0).values)
    assert moved.info.mode == "joint"


def test_the_temperature_falls_and_then_holds():
    config = DiscoverConfig(steps=100, start_temperature=0.08, temperature=0.02)
    assert config.temperature_at(0) == pytest.approx(0.08)
    assert config.temperature_at(40) == pytest.approx(0.04)
    assert [config.temperature_at(step) for step in (80, 99)] == pytest.approx([0.02, 0.02])


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(InputError, match="temperatures"):
        DiscoverConfig(temperature=0.0)
    with pytest.raises(InputError, match="candidates"):
        DiscoverConfig(num_tokens=5, num_candidates=4)
    with pytest.raises(InputError, match="batch"):
        DiscoverConfig(batch=0)
    with pytest.raises(InputError, match="exemplars"):
        DiscoverConfig(exemplars=0)


def test_detection_returns_planted_points(backend, objects, generator, monkeypatch):
    points = 0.5 * torch.rand(1, 3, 3, generator=generator) - 0.25
    xy = backend.cameras.project(points)[0]
    heatmaps = normalize(gaussian(xy, 32, 32, 1.5))
    detector = KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(noises=2, space="triangulation"))

    def heatmaps_of(passes, which, layout):
        return heatmaps.expand(2, 6, 3, 32, 32) if which == "grid" else heatmaps[None, :1].expand(2, 1, 3, 32, 32)

    monkeypatch.setattr(detector, "_heatmaps", heatmaps_of)
    found = detector.detect_object(objects[0])
    torch.testing.assert_close(found.keypoints_3d.xyz, points[0], atol=1e-3, rtol=0)
    assert found.keypoints_3d.score.min() > 0.8
    assert found.keypoints_3d.visible.all()
    # Read from the evidence they are drawn onto the object, as every view sees it.
    detector.config = DetectConfig(noises=2)
    found = detector.detect_object(objects[0])
    beside = beside_silhouette(silhouette_distance(found.masks), backend.cameras.project(found.keypoints_3d.xyz))
    assert beside.max() < 2 / 16


def slow_peak(heatmap, peak):
    """Place and score of one heatmap [height, width] by loops; the window's radius is 0.12 of 32 pixels, so 4."""
    side = len(heatmap)
    cells = [(row, col) for row in range(side) for col in range(side)]
    top = max(cells, key=lambda cell: heatmap[cell])
    near = [cell for cell in cells if max(abs(cell[0] - top[0]), abs(cell[1] - top[1])) <= 4]
    used = {"soft": cells, "window": near, "argmax": [top]}[peak]
    mass = sum(heatmap[cell] for cell in used)
    x, y = (sum(heatmap[cell] * (cell[axis] + 0.5) / side for cell in used) / mass for axis in (1, 0))
    flat = len(near) / side**2
    return (x, y), max(0.0, (sum(heatmap[cell] for cell in near) - flat) / (1 - flat))


@pytest.mark.parametrize("peak", ["soft", "window", "argmax", None])
def test_every_reading_of_a_peak_is_that_of_the_heatmaps(backend, objects, peak):
    config = replace(SMALL, map_size=32)
    detector = KeypointDetector(backend, untrained(backend, config), DetectConfig(1, 1, peak))
    found = detector.detect_object(objects[0])
    assert found.heatmaps.shape == (6, 3, 32, 32)
    for view in range(6):
        for k in range(3):
            place, score = slow_peak(found.heatmaps[view, k].double().numpy(), peak or "soft")
            assert found.keypoints_2d.xy[view, k].tolist() == pytest.approx(place, abs=1e-5)
            assert found.keypoints_2d.score[view, k].item() == pytest.approx(score, abs=1e-5)
    place, _ = slow_peak(found.input_heatmaps[1].double().numpy(), peak or "soft")
    assert found.keypoints_2d.input_xy[1].tolist() == pytest.approx(place, abs=1e-5)


def test_attention_of_a_single_view_is_read_in_a_window(stable_diffusion, objects):
    config = DiscoverConfig(num_tokens=2, num_candidates=2, map_size=32, prepare=PrepareConfig(warps=0))
    found = KeypointDetector(stable_diffusion, untrained(stable_diffusion, config), DetectConfig(1)).detect_object(
        objects[0].input_image
    )
    for k in range(2):
        place, score = slow_peak(found.heatmaps[0, k].double().numpy(), "window")
        assert found.keypoints_2d.xy[0, k].tolist() == pytest.approx(place, abs=1e-5)
        assert found.keypoints_2d.score[0, k].item() == pytest.approx(score, abs=1e-5)


def test_versions_are_averaged_over_those_that_show_a_pixel(generator):
    warp = Warp(
        torch.cat([Warp.identity((1, 6)).matrix, random_warps((3, 6), generator, 20.0, (0.8, 1.1), 0.3).matrix])
    )
    ones = torch.ones(4, 6, 2, 20, 20)
    # Without counting, pixels that a warp moved out of the picture would be darker.
    torch.testing.assert_close(averaged(ones, warp), ones[0])
    maps = torch.rand(4, 6, 2, 20, 20, generator=generator)
    back, shown = unwarp(maps, warp), inside(warp, 20, 20)
    row, col = 3, 12
    seen = [back[n, 1, 0, row, col] for n in range(4) if shown[n, 1, row, col]]
    torch.testing.assert_close(averaged(maps, warp)[1, 0, row, col], torch.stack(seen).mean())


def test_distance_from_the_silhouette():
    masks = torch.zeros(2, 4, 8, dtype=torch.bool)
    masks[0, 1, 2] = True
    found = silhouette_distance(masks)
    for row in range(4):
        for column in range(8):
            expected = (((row - 1) / 4) ** 2 + ((column - 2) / 8) ** 2) ** 0.5
            assert found[0, row, column].item() == pytest.approx(expected)
    # A view with no silhouette says nothing.
    assert found[1].eq(0).all()


def test_silhouettes_without_alpha(objects):
    thing = objects[0]
    agree = (silhouettes(thing.views) == thing.masks).float().mean()
    assert agree > 0.95


def test_only_tokens_with_a_constellation_are_read_by_one(backend, objects):
    plain = untrained(backend, SMALL)
    with pytest.raises(InputError, match="constellation"):
        KeypointDetector(backend, plain, DetectConfig(space="constellation")).detect_object(objects[0])
    found = discover(backend, objects, replace(SMALL, steps=1))
    by_default, alone = (
        KeypointDetector(backend, found, DetectConfig(noises=1, space=space)).detect_object(objects[0])
        for space in (None, "evidence")
    )
    chosen = KeypointDetector(backend, found, DetectConfig(noises=1, space="constellation")).detect_object(objects[0])
    assert torch.equal(by_default.keypoints_3d.xyz, chosen.keypoints_3d.xyz)
    # Helpers are no keypoints.
    assert len(found.helpers) == SMALL.num_candidates - SMALL.num_tokens > 0
    assert by_default.heatmaps.shape[1] == len(by_default.keypoints_3d.xyz) == SMALL.num_tokens
    assert len(by_default.input_heatmaps) == SMALL.num_tokens
    assert not torch.equal(by_default.keypoints_2d.xy, alone.keypoints_2d.xy)
    # The places in the views are read near the common point, but for the width of a map's pixel.
    residual = by_default.keypoints_3d.residual
    assert residual.median() < 0.08
    assert residual.median() < alone.keypoints_3d.residual.median()


def test_a_place_is_read_near_the_common_point_and_scored_by_the_heat_there():
    both = gaussian(torch.tensor([[[0.2, 0.2]], [[0.8, 0.8]]]), 32, 32, 1.0)
    heatmaps = normalize(both[:1] * 0.3 + both[1:])  # one view of one token, that marks two places
    guided = near(heatmaps, torch.tensor([[[0.22, 0.2]]]), 0.08)
    torch.testing.assert_close(peak_xy(guided, "soft", 0.12), torch.tensor([[[0.2, 0.2]]]), atol=0.02, rtol=0)
    assert (peak_xy(heatmaps, "soft", 0.12) - 0.2).norm() > 0.3
    flat = 81 / 1024  # of the window
    assert peak_score(heatmaps, guided, 0.12).item() == pytest.approx((0.3 / 1.3 - flat) / (1 - flat), abs=0.01)
    # Where a view has no heat at all its place is the common one, with a score of 0.
    far = torch.tensor([[[0.2, 0.8]]])
    nowhere = near(heatmaps, far, 0.08)
    torch.testing.assert_close(peak_xy(nowhere, "soft", 0.12), far, atol=0.02, rtol=0)
    assert peak_score(heatmaps, nowhere, 0.12) < 0.01


def test_an_earlier_run_and_somebody_elses_files_are_kept_before_the_model_runs(backend, objects, tmp_path):
    def never(*_):
        raise AssertionError("the model was run")

    first = discover(backend, objects, SMALL, tmp_path / "run")
    checkpoint = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "checkpoint.txt").write_text("mine")
    for folder, words in (("run", "holds a discovery run already"), ("mine", "did not mark as its own")):
        with pytest.raises(InputError, match=words):
            discover(backend, objects, SMALL, tmp_path / folder, report=never)
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == checkpoint
    other = discover(backend, objects, replace(SMALL, seed=1), tmp_path / "run", overwrite=True)
    assert not torch.equal(other.embedding, first.embedding)
    again = discover(backend, objects, SMALL, tmp_path / "run", overwrite=True)
    assert torch.equal(again.embedding, first.embedding)


def test_an_unknown_reading_of_peaks_is_refused(backend):
    with pytest.raises(InputError, match="soft, window, argmax, not 'mean'"):
        KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(peak="mean"))
