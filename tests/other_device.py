"""The work on a device that is not the CPU (`pretend_device.py`): it runs, and finds what it finds on the CPU.

Run by `test_other_device.py` in a process of its own, since a device is registered for good; or by hand:
`pytest tests/other_device.py`.
"""

import json
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch

import pretend_device
from agreements import epipolar_consistency, hull_likelihood, uncertain_agreement, uncovered
from helpers import layouts
from helpers.counting import a_step_of
from keyorbit.app.layers import attention_by_layer
from keyorbit.detection.detector import PEAKS, DetectConfig, KeypointDetector
from keyorbit.detection.input_camera import search_input_camera
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.inspection.cost import Subject, measure
from keyorbit.diffusion.inspection.drift import measure_drift
from keyorbit.diffusion.inspection.variants import CAPTURES
from keyorbit.discovery import losses
from keyorbit.discovery.cache.build import build_cache
from keyorbit.discovery.cache.disk import open_cache
from keyorbit.discovery.cache.index import plan_cache
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover, discover_cached
from keyorbit.discovery.initial import untrained
from keyorbit.evaluation import metrics
from keyorbit.evaluation.evaluate import detect_all, evaluate
from keyorbit.evaluation.landmarks import view_boxes
from keyorbit.evaluation.protocol import ProtocolConfig, run_protocol
from keyorbit.evaluation.readers import read_dataset
from keyorbit.geometry.alignment import canonical_points, symmetric_pairs
from keyorbit.geometry.camera_checks import check_cameras
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.evidence import read_evidence
from keyorbit.geometry.heatmaps import normalize
from keyorbit.geometry.hull import hull_points
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.triangulation import point_covariance, robust_triangulate, triangulate
from keyorbit.geometry.views import Layout
from keyorbit.geometry.warps import Warp
from keyorbit.objects.dataset import ObjectViews
from keyorbit.output.choices import FORMATS
from keyorbit.output.page.panels import make_panel, render_panel
from keyorbit.output.skeleton import co_moving_skeleton
from keyorbit.output.write import write_detection
from keyorbit.storage.outputs import MARKER
from pnp import solve_input_camera

# The stand-in would copy what is a view elsewhere, and lose what is written into it.
pytestmark = pytest.mark.filterwarnings("error:.*appears to be a view operator")

DEVICE = pretend_device.NAME
# Some sums are made in another order there.
NEAR = {"atol": 1e-4, "rtol": 1e-4}
FEW = DiscoverConfig(num_tokens=2, num_candidates=4, steps=2, batch=2, planting=3, exemplars=2, seed=3)


@pytest.fixture(scope="module")
def there(model_folder):
    return load_backend(model_folder, device=DEVICE)


@pytest.fixture(scope="module")
def tokens(backend, objects):
    return discover(backend, objects, FEW)


def test_the_device_is_as_strict_as_a_gpu():
    ours = torch.ones(3, device=DEVICE)
    beside = torch.ones(3)
    place, number = torch.tensor([0]), torch.tensor(0.0)
    for mixed in (
        lambda: ours + beside,
        lambda: torch.eye(3) @ ours,
        lambda: torch.stack([ours, beside]),
        lambda: torch.stack([ours[0], number]),
        lambda: ours.index_select(0, place),
        lambda: ours.gather(0, place),
        lambda: beside[place.to(DEVICE)],
        lambda: beside[ours > 0],
        lambda: beside.index_put_((place.to(DEVICE),), number),
        lambda: number.add_(ours[0]),
        lambda: torch.where(beside > 0, ours, 0.0),
        lambda: torch.nn.functional.conv1d(ours[None, None], torch.ones(1, 1, 2)),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert torch.equal(ours[place].cpu(), beside[place])  # which a GPU takes
    assert torch.equal((ours + number).cpu(), beside)
    for read in (lambda: ours.numpy(), lambda: np.asarray(ours)):
        with pytest.raises(TypeError, match="numpy"):
            read()
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, generator=torch.Generator(), device=DEVICE)


def test_the_device_counts_as_the_cpu_does():
    for change in (
        lambda x: x[:, :2, 1].sub_(2.0),
        lambda x: x[:, :2, :2].mul_(3.0),
        lambda x: x.mT[0].add_(x[1]),
        lambda x: x[1:].copy_(x[:1]),
        lambda x: x.index_put_((torch.tensor([0, 1]).to(x.device),), x[:2] * 2),
        lambda x: x[0].clamp_(0.2, 0.8),
        lambda x: x.unfold(1, 2, 2).mul_(2.0),
    ):
        here, there = torch.rand(3, 4, 4), torch.empty(3, 4, 4, device=DEVICE)
        there.copy_(here)
        change(here)
        change(there)
        assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize(
    ("method", "maps"),
    [*(("constellation", maps) for maps in ("logits", "attention", "stablekeypoints")), ("consistency", "logits")],
)
def test_discovery(method, maps, backend, there, objects):
    config = replace(FEW, method=method, maps=maps)
    here, found = (discover(model, objects, config) for model in (backend, there))
    torch.testing.assert_close(found.embedding, here.embedding, **NEAR)
    torch.testing.assert_close(torch.tensor(found.info.places), torch.tensor(here.info.places), **NEAR)


@pytest.mark.parametrize("method", ["constellation", "consistency"])
def test_discovery_through_the_unet(method, backend, there, objects):
    config = replace(FEW, method=method, mode="joint", planting=2, exemplars=1)
    here, found = (discover(model, objects, config) for model in (backend, there))
    torch.testing.assert_close(found.embedding, here.embedding, **NEAR)


@pytest.mark.parametrize("maps", ["logits", "attention", "stablekeypoints"])
def test_discovery_and_detection_of_a_single_view(maps, stable_diffusion, stable_diffusion_folder, objects):
    there = load_backend(stable_diffusion_folder, device=DEVICE)
    pictures = [replace(thing, views=None, masks=None, cameras=None, truth=None) for thing in objects]
    config = replace(FEW, maps=maps)
    here, found = (discover(model, pictures, config) for model in (stable_diffusion, there))
    torch.testing.assert_close(found.embedding, here.embedding, **NEAR)
    places = [KeypointDetector(m, here).detect(pictures[0]).xy for m in (stable_diffusion, there)]
    torch.testing.assert_close(*places)


def test_discovery_from_a_cache_on_disk(backend, there, objects, tmp_path):
    cache = build_cache(there, objects, plan_cache(there, objects, FEW), tmp_path / "cache")
    assert cache.device.type == DEVICE
    found = discover_cached(open_cache(tmp_path / "cache", DEVICE), FEW, tmp_path / "run")
    torch.testing.assert_close(found.embedding, discover(backend, objects, FEW).embedding, **NEAR)
    again = discover_cached(cache, replace(FEW, steps=2), tmp_path / "run", resume=True)
    assert torch.equal(again.embedding, found.embedding)


@pytest.mark.parametrize(
    ("space", "given"),
    [("constellation", True), ("evidence", True), ("triangulation", True), ("constellation", False)],
)
def test_detection(space, given, backend, there, objects, tokens):
    thing = objects[0] if given else ObjectViews("picture", objects[0].input_image)
    config = DetectConfig(noises=2, space=space)
    here, found = (KeypointDetector(model, tokens, config).detect_object(thing) for model in (backend, there))
    torch.testing.assert_close(found.keypoints_3d.xyz, here.keypoints_3d.xyz, **NEAR)
    torch.testing.assert_close(found.keypoints_3d.score, here.keypoints_3d.score, **NEAR)
    torch.testing.assert_close(found.keypoints_2d.xy, here.keypoints_2d.xy, **NEAR)
    torch.testing.assert_close(found.input_camera.elevation_deg, here.input_camera.elevation_deg, atol=0.1, rtol=0)


def test_no_step_of_a_generation_waits_or_copies(there, objects):
    def generate(steps):
        return there.generate([objects[0].input_image], torch.Generator().manual_seed(0), steps)

    _, waits, copies = a_step_of(generate)
    assert (waits, copies) == (0, 0)


def test_objects_are_recorded_together_here(there, objects, tokens):
    """Eight by default, and each as if it were alone."""
    detector, forwards = KeypointDetector(there, tokens, DetectConfig(noises=1)), []
    hook = there.unet.register_forward_pre_hook(lambda _, args: forwards.append(len(args[0])))
    found = detect_all(detector, objects)
    hook.remove()
    assert forwards == [3, 3]
    for one, thing in zip(found, objects, strict=True):
        torch.testing.assert_close(one.keypoints_2d.xy, detector.detect_object(thing).keypoints_2d.xy, **NEAR)


@pytest.mark.parametrize("peak", PEAKS)
def test_every_peak(peak, backend, there, objects, tokens):
    config = DetectConfig(noises=1, warps=1, peak=peak)
    here, found = (KeypointDetector(model, tokens, config).detect_object(objects[0]) for model in (backend, there))
    torch.testing.assert_close(found.keypoints_2d.xy, here.keypoints_2d.xy, **NEAR)


def test_evaluation(backend, there, objects, tokens):
    scores = []
    for model in (backend, there):
        judged = []
        for chosen in (tokens, untrained(model, FEW)):
            detector = KeypointDetector(model, chosen, DetectConfig(noises=1))
            found = detect_all(detector, objects)
            judged.append(evaluate(found, objects, moved=(found, objects)).to_dict()["measures"])
        scores.append(judged)
    for here, found in zip(*scores, strict=True):
        known = {name for name, value in here.items() if value is not None}
        assert known == {name for name, value in found.items() if value is not None}
        assert len(known) > 15
        assert {k: found[k] for k in known} == pytest.approx({k: here[k] for k in known}, abs=1e-3)


def moved(thing):
    """The same with every tensor and camera in it on the device."""
    if isinstance(thing, torch.Tensor | Cameras):
        return thing.to(DEVICE)
    if is_dataclass(thing):
        return replace(thing, **{f.name: moved(getattr(thing, f.name)) for f in fields(thing) if f.init})
    return thing


@pytest.fixture(scope="module")
def detection(backend, objects, tokens):
    return KeypointDetector(backend, tokens, DetectConfig(noises=1)).detect_object(objects[0])


def test_keypoints_that_were_moved_are_written_the_same(detection, tmp_path):
    pytest.importorskip("rerun", reason="rerun is an extra: pip install 'keyorbit[rerun]'")
    for folder, found in (("here", detection), ("there", moved(detection))):
        write_detection(tmp_path / folder, found, FORMATS, [(0, 1)])
    here, there = (
        {path.relative_to(tmp_path / folder): path for path in (tmp_path / folder).rglob("*") if path.is_file()}
        for folder in ("here", "there")
    )
    assert here.keys() == there.keys()
    # A recording holds the time at which it was made, and the folder's marker a sum of it.
    same = [file for file in here if file.suffix != ".rrd" and file.name != MARKER]
    assert len(same) > len(detection.views) + 5
    assert [file for file in same if here[file].read_bytes() != there[file].read_bytes()] == []


def test_keypoints_that_were_moved_make_the_same_panel(detection, objects):
    here, there = (make_panel(found, objects[0].truth) for found in (detection, moved(detection)))
    assert there.facts == here.facts
    assert json.loads(there.scene)["points"] == json.loads(here.scene)["points"]


def test_boxes_of_masks_that_were_moved(detection, objects):
    """One view's mask is empty, so its box is 0 by 0."""
    masks = detection.masks.clone()
    masks[0] = False
    truth, found = replace(objects[0].truth, boxes=None), replace(detection, masks=masks)
    here, there = (view_boxes(one, truth, slice(1, None)) for one in (found, moved(found)))
    assert here[0].tolist() == [0, 0]
    assert torch.equal(there.cpu(), here)


def test_the_published_protocol(stable_diffusion, stable_diffusion_folder, tmp_path):
    layouts.write_taichi(tmp_path)
    train, test = (read_dataset("taichi", tmp_path, split) for split in ("train", "test"))
    config = ProtocolConfig(2, 4, 2, 2, pictures=2, fit=2, test=1, augmentations=1, map_size=16)
    models = stable_diffusion, load_backend(stable_diffusion_folder, device=DEVICE)
    here, there = (run_protocol(model, "taichi", train, test, config).value for model in models)
    assert there == pytest.approx(here, rel=1e-3)


def test_drift(backend, there):
    here, found = (measure_drift(model, counts=(2,), norms=(1.0,), steps=1)[0] for model in (backend, there))
    assert found.isolated_equal
    assert found.psnr == pytest.approx(here.psnr, abs=0.1)


@pytest.mark.parametrize("random", [True, False])
def test_cost(random, model_folder):
    for cost in measure(Subject(str(model_folder), 4, random, DEVICE), CAPTURES, repeats=1):
        assert cost.median > 0
        assert cost.peak_bytes == 0  # the stand-in counts none


def test_files_and_pages(there, objects, tokens, tmp_path):
    pytest.importorskip("rerun", reason="rerun is an extra: pip install 'keyorbit[rerun]'")
    found = KeypointDetector(there, tokens, DetectConfig(noises=1)).detect_object(objects[0])
    write_detection(tmp_path / "out", found, FORMATS, [(0, 1)])
    assert (tmp_path / "out" / "points.glb").is_file()
    assert "<section" in render_panel(make_panel(found, objects[0].truth))
    views, layers = attention_by_layer(there, tokens, objects[0], 1)
    assert len(views) == 6
    assert len(layers) > 3


def test_the_command_line(model_folder, chairs, tmp_path, command):
    where = ["--device", DEVICE]
    run, scores = tmp_path / "run", tmp_path / "scores.json"
    (tmp_path / "few.toml").write_text("planting = 2\nexemplars = 1")
    few = [
        "--tokens",
        2,
        "--candidates",
        3,
        "--steps",
        2,
        "--batch",
        2,
        "--config",
        tmp_path / "few.toml",
        "--noises",
        1,
    ]
    assert command("discover", chairs, "--model", model_folder, "--out", run, *few, *where) == 0
    assert command("detect", run, chairs, "--out", tmp_path / "found", "--noises", 1, "--skeleton", "auto", *where) == 0
    assert command("evaluate", run, chairs, "--json", scores, *where) == 0
    assert json.loads(scores.read_text())["discovered"]["landmark_3d"] > 0
    assert command("report", run, chairs, "--objects", 1, *where) == 0
    cache = tmp_path / "cache"
    assert command("cache", chairs, "--model", model_folder, "--out", cache, "--noises", 1, *where) == 0
    assert command("discover", "--cache", cache, "--out", tmp_path / "cached", *few[:-2], *where) == 0


def tensor(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


POINTS, OTHERS, TRUE = tensor(0, 4, 5, 3) - 0.5, tensor(1, 4, 5, 3) - 0.5, tensor(2, 4, 7, 3) - 0.5
MAPS, RIG = normalize(tensor(3, 4, 6, 5, 8, 8)), zero123plus_cameras()
SEEN, SOME, FEW_SEEN = tensor(4, 4, 6, 5) > 0.2, tensor(5, 4, 5) > 0.2, tensor(6, 4, 7) > 0.2
XY = RIG.project(POINTS)
SPREAD = torch.eye(2).expand(4, 6, 5, 2, 2) * 1e-3
SURFACE = tensor(7, 4, 30, 3) - 0.5

# Public mathematics that a user may call with what is on a GPU; ``to`` puts tensors and cameras there.
MATHEMATICS = {
    "losses.sharpening": lambda to: losses.sharpening(to(MAPS)),
    "losses.localization": lambda to: losses.localization(to(MAPS)),
    "losses.grid_sharpening": lambda to: losses.grid_sharpening(to(MAPS), Layout(3, 2)),
    "losses.pixel_consistency": lambda to: losses.pixel_consistency(to(MAPS)),
    "losses.equivariance": lambda to: losses.equivariance(
        to(MAPS[:, 0]), to(MAPS[:, 1]), Warp(to(torch.eye(2, 3).expand(4, 2, 3)))
    ),
    "losses.geometric_consistency": lambda to: losses.geometric_consistency(to(MAPS), to(RIG)),
    "losses.spread": lambda to: losses.spread(to(MAPS)),
    "losses.separation": lambda to: losses.separation(to(POINTS), 0.5),
    "losses.on_object": lambda to: losses.on_object(to(MAPS), to(MAPS[:, :, 0] > 0)),
    "losses.off_silhouette": lambda to: losses.off_silhouette(to(POINTS), to(RIG), to(MAPS[:, :, 0])),
    "losses.multi_view": lambda to: losses.multi_view(to(MAPS), cameras=to(RIG)).total,
    "multiview.uncertain_agreement": lambda to: uncertain_agreement(to(XY), to(SPREAD), to(RIG)).nll,
    "multiview.epipolar_consistency": lambda to: epipolar_consistency(to(XY), to(RIG)),
    "multiview.hull_likelihood": lambda to: hull_likelihood(
        to(MAPS[:, None]), to(RIG.project(SURFACE)[:, None]), to(SURFACE)
    )[0],
    "multiview.uncovered": lambda to: uncovered(to(SURFACE), to(POINTS)),
    "triangulate": lambda to: triangulate(to(XY), to(RIG), to(SEEN.float()), covariance=to(SPREAD)),
    "robust_triangulate": lambda to: robust_triangulate(to(XY), to(RIG))[0],
    "point_covariance": lambda to: point_covariance(to(POINTS), to(RIG), to(SEEN.float()), to(POINTS[..., 0].abs())),
    "read_evidence": lambda to: read_evidence(to(MAPS), to(RIG), to(MAPS[:, :, 0])).xyz,
    "hull_points": lambda to: hull_points(to(MAPS[0, :, 0]), to(RIG), 20, torch.Generator().manual_seed(0)),
    "canonical_points": lambda to: canonical_points(to(POINTS)),
    "symmetric_pairs": lambda to: torch.tensor(symmetric_pairs(to(POINTS[0]), to(POINTS[1, :, 0].abs()))).sum(),
    "co_moving_skeleton": lambda to: torch.tensor(co_moving_skeleton(to(POINTS), to(SOME))).sum(),
    "solve_input_camera": lambda to: (
        solve_input_camera(to(POINTS[0]), to(XY[0, 0]), to(torch.ones(5)), to(RIG)).elevation_deg
    ),
    "search_input_camera": lambda to: (
        search_input_camera(to(POINTS[0]), to(torch.ones(5)), to(MAPS[0, 0]), to(XY[0, 0]), to(RIG)).elevation_deg
    ),
    "check_cameras": lambda to: check_cameras(to(RIG), to(torch.ones(6))) or torch.zeros(1),
    "metrics.dual_alignment_score": lambda to: metrics.dual_alignment_score(to(POINTS), to(TRUE), to(FEW_SEEN)),
    "metrics.label_free_correspondence": lambda to: metrics.label_free_correspondence(to(POINTS), to(SOME)),
    "metrics.repeatability": lambda to: metrics.repeatability(
        to(POINTS), to(OTHERS), to(torch.eye(4).expand(4, 4, 4)), 0.3, to(SOME), to(SOME)
    ),
    "metrics.snapped_iou": lambda to: metrics.snapped_iou(
        to(POINTS), to(SURFACE), to(TRUE), 0.3, to(FEW_SEEN), to(SOME)
    ),
    "metrics.hungarian_iou": lambda to: metrics.hungarian_iou(to(POINTS), to(TRUE), 0.3, to(FEW_SEEN), to(SOME)),
    "metrics.landmark_regression_3d": lambda to: metrics.landmark_regression_3d(
        to(POINTS), to(TRUE), to(OTHERS), to(TRUE), to(FEW_SEEN), to(FEW_SEEN)
    ),
    "metrics.landmark_regression_2d": lambda to: metrics.landmark_regression_2d(
        to(POINTS[..., :2]), to(TRUE[..., :2]), to(OTHERS[..., :2]), to(TRUE[..., :2]), to(FEW_SEEN), to(FEW_SEEN)
    ),
    "metrics.fit_oriented_landmark_map": lambda to: metrics.fit_oriented_landmark_map(
        to(POINTS[..., :2]), to(TRUE[..., :2]), [(0, 1)], ridge=1.0
    ),
    "metrics.mean_reprojection_px": lambda to: metrics.mean_reprojection_px(
        to(POINTS), to(XY), to(RIG), 8, 8, to(SEEN)
    ),
    "metrics.on_object_rate": lambda to: metrics.on_object_rate(to(XY), to(MAPS[:, :, 0] > 0), mask=to(SEEN)),
    "metrics.pa_mpjpe": lambda to: metrics.pa_mpjpe(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.relative_pose_error": lambda to: metrics.relative_pose_error(
        to(POINTS), to(OTHERS), to(torch.eye(3).expand(4, 3, 3)), to(SOME)
    ),
    "metrics.pck_per_image": lambda to: metrics.pck_per_image(
        to(POINTS[..., :2]), to(OTHERS[..., :2]), to(torch.ones(4, 2)), mask=to(SOME)
    ),
    "metrics.orientation_invariant_error": lambda to: metrics.orientation_invariant_error(
        to(POINTS[..., :2]), to(OTHERS[..., :2]), [(0, 1)], to(SOME)
    ),
    "metrics.coverage": lambda to: metrics.coverage(to(POINTS), to(TRUE), 0.3, to(FEW_SEEN), to(SOME)),
    "metrics.extent_coverage": lambda to: metrics.extent_coverage(to(POINTS), to(SURFACE), to(SOME)),
    "metrics.inclusivity": lambda to: metrics.inclusivity(to(POINTS), to(SURFACE), 0.3, to(SOME)),
    "metrics.psnr": lambda to: metrics.psnr(to(MAPS[:, :3, 0]), to(MAPS[:, 3:, 0])),
    "metrics.ssim": lambda to: metrics.ssim(to(tensor(8, 2, 3, 16, 16)), to(tensor(9, 2, 3, 16, 16))),
}


@pytest.mark.parametrize("name", MATHEMATICS)
def test_mathematics(name):
    call = MATHEMATICS[name]
    here, found = call(lambda x: x), call(lambda x: x.to(DEVICE))
    torch.testing.assert_close(found.cpu(), here, **NEAR, equal_nan=True)
