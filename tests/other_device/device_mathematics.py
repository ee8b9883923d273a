"""Every public function that takes tensors gives on the device what it gives on the CPU, and there."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import typing
from pathlib import Path

import pytest
import torch
from jaxtyping import AbstractArray

import keyorbit
from keyorbit import losses, metrics
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.maps import LayerMaps
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.cache.disk import DiskCache
from keyorbit.geometry.alignment import Form
from keyorbit.geometry.cameras import orbit_cameras
from keyorbit.geometry.heatmaps import normalize
from keyorbit.geometry.hull import search_volume, silhouette_distance
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import known_rigs, rig, zero123plus_cameras
from keyorbit.geometry.triangulation import triangulate as triangulated
from keyorbit.geometry.views import Layout
from keyorbit.geometry.warps import Warp
from other_device.common import DEVICE, NEAR, moved

pytestmark = pytest.mark.filterwarnings("error:.*appears to be a view operator")


def tensor(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def seeded():
    return torch.Generator().manual_seed(0)


RIG = zero123plus_cameras()
BOX = orbit_cameras([0.0, 90.0, 180.0], [20.0, -10.0, 5.0], orthographic=True)
POINTS, OTHERS, TRUE = tensor(0, 4, 5, 3) - 0.5, tensor(1, 4, 5, 3) - 0.5, tensor(2, 4, 7, 3) - 0.5
MAPS = normalize(tensor(3, 4, 6, 5, 8, 8))
SEEN, SOME, FEW_SEEN = tensor(4, 4, 6, 5) > 0.2, tensor(5, 4, 5) > 0.2, tensor(6, 4, 7) > 0.2
XY = RIG.project(POINTS)
SPREAD = torch.eye(2).expand(4, 6, 5, 2, 2) * 1e-3
SURFACE = tensor(7, 4, 30, 3) - 0.5
# From keypoints to landmarks.
AWAY = tensor(28, 4, 5, 7)
MIRRORED = torch.tensor([[3.0, 1, 2], [-3, 1, 2], [2, -3, 1], [-2, -3, 1], [0, 2, -3]]) / 10
WARP = Warp(torch.eye(2, 3).expand(4, 2, 3) + 0.1 * tensor(8, 4, 2, 3))
MASKS = torch.zeros(6, 16, 16, dtype=torch.bool)
MASKS[:, 4:11, 5:12] = True
DISTANCE = silhouette_distance(MASKS)
ROTATIONS = torch.eye(3).expand(2, 3, 3)
FORMS = [Form(tensor(s, 3), torch.diag(tensor(s + 1, 3)) + 0.1) for s in (9, 11)]
SCORE = tensor(13, 6, 5)
FLAT = Keypoints2D(XY[0], SCORE, RIG, XY[0, 0], SCORE[0])
SOLID = FLAT.triangulate()
POSE = torch.eye(4).expand(4, 4, 4)
BOXES = torch.ones(4, 2)
FLAT_POINTS, FLAT_OTHERS, FLAT_TRUE = POINTS[..., :2], OTHERS[..., :2], TRUE[..., :2]
TOKENS = Tokens(tensor(14, 3, 4))
LAYERS = [LayerMaps("a", tensor(15, 2, 3, 24, 5), (6, 4))]
IMAGES = tensor(16, 2, 3, 16, 16), tensor(17, 2, 3, 16, 16)

# By module and name: a call of ``f``, which is that function, with ``to`` applied to tensors and what holds them.
TABLE = {
    "alignment.canonical_points": lambda f, to: f(to(POINTS)),
    "alignment.repeatability": lambda f, to: f(to(POINTS)),
    "alignment.middle_and_stray": lambda f, to: f(to(POINTS)),
    "alignment.symmetric_pairs": lambda f, to: f(to(MIRRORED), to(torch.zeros(5))),
    "alignment.turns_by": lambda f, to: f(to(POINTS[..., 0])),
    "alignment.Form.rows": lambda f, to: f(to(FORMS[0])),
    "alignment.Form.from_rows": lambda f, to: f(to(FORMS[0].rows)),
    "alignment.form_of": lambda f, to: f(to(SURFACE)),
    "alignment.stretched": lambda f, to: f(to(POINTS[0]), to(FORMS[0]), to(FORMS[1])),
    "camera_checks.check_cameras": lambda f, to: f(to(RIG), to(torch.ones(6))),
    "cameras.Cameras.projection": lambda f, to: f(to(RIG)),
    "cameras.Cameras.centers": lambda f, to: f(to(RIG)),
    "cameras.Cameras.directions": lambda f, to: f(to(RIG)),
    "cameras.Cameras.project": lambda f, to: f(to(RIG), to(POINTS)),
    "cameras.Cameras.depth": lambda f, to: f(to(RIG), to(POINTS)),
    "cameras.Cameras.about": lambda f, to: f(to(RIG), to(POINTS[0, 0])),
    "cameras.Cameras.zoomed": lambda f, to: f(to(RIG), 0.5, (0.1, 0.2)),
    "cameras.Cameras.to": lambda f, to: f(to(RIG), dtype=torch.bfloat16),
    "cameras.Cameras.select": lambda f, to: f(to(RIG), to(torch.tensor([2, 0]))),
    "cameras.Cameras.join": lambda f, to: f(to(RIG), to(RIG)),
    "cameras.Cameras.to_dict": lambda f, to: f(to(RIG)),
    "cameras.repeat_cameras": lambda f, to: f(to(RIG), 2),
    "constellation.turned": lambda f, to: f(to(POINTS), to(ROTATIONS)),
    "constellation.turn_scores": lambda f, to: f(
        to(tensor(20, 4, 5, 30)), to(SURFACE[:, None].repeat(1, 2, 1, 1)), to(POINTS[0]), 0.3
    ),
    "constellation.placed": lambda f, to: f(to(tensor(20, 4, 5, 30)), to(SURFACE), to(POINTS[0]), 0.3),
    "constellation.read_constellation": lambda f, to: f(
        to(MAPS[0]), to(RIG), to(POINTS[0]), to(DISTANCE), form=to(FORMS[0])
    ),
    "constellation.upright": lambda f, to: f(to(RIG)),
    "constellation.gathered": lambda f, to: f(to(tensor(21, 4, 3, 5, 3)), to(torch.tensor([0, 2, 1, 0]))),
    "evidence.view_evidence": lambda f, to: f(to(MAPS), to(XY)),
    "evidence.relative_heat": lambda f, to: f(to(MAPS), to(XY)),
    "evidence.heat_evidence": lambda f, to: f(to(MAPS)),
    "evidence.log_evidence": lambda f, to: f(to(POINTS[0]), to(MAPS[0]), to(RIG), to(DISTANCE)),
    "evidence.read_evidence": lambda f, to: f(to(MAPS), to(RIG), to(MAPS[:, :, 0])),
    "evidence.evidence_grid": lambda f, to: f(to(MAPS[0]), to(RIG), to(DISTANCE)),
    "evidence.refined": lambda f, to: f(to(POINTS[0]), 0.1, to(MAPS[0]), to(RIG), to(DISTANCE)),
    "heatmaps.pixel_centers": lambda f, to: f(3, 4, device=to(POINTS).device),
    "heatmaps.resize": lambda f, to: [f(to(MAPS), (11, 5), mode) for mode in ("bilinear", "bicubic", "nearest-exact")],
    "heatmaps.spatial_softmax": lambda f, to: f(to(MAPS), 0.1),
    "heatmaps.normalize": lambda f, to: f(to(MAPS)),
    "heatmaps.argmax_rowcol": lambda f, to: f(to(MAPS)),
    "heatmaps.argmax_xy": lambda f, to: f(to(MAPS)),
    "heatmaps.soft_argmax_xy": lambda f, to: f(to(MAPS)),
    "heatmaps.windowed_soft_argmax_xy": lambda f, to: f(to(MAPS), 2),
    "heatmaps.covariance": lambda f, to: f(to(MAPS)),
    "heatmaps.spatial_variance": lambda f, to: f(to(MAPS)),
    "heatmaps.gaussian": lambda f, to: f(to(XY), 8, 8, 1.0),
    "heatmaps.gaussian_kl": lambda f, to: f(to(MAPS)),
    "heatmaps.subject_peaks": lambda f, to: f(to(MAPS), 2),
    "heatmaps.subject_spots": lambda f, to: f(to(MAPS), 1.0, 2),
    "heatmaps.at_least_float32": lambda f, to: f(to(MAPS.half())),
    "heatmaps.with_peak_one": lambda f, to: f(to(MAPS)),
    "hull.silhouettes": lambda f, to: f(to(IMAGES[0])),
    "hull.Silhouette.of": lambda f, to: f(to(MASKS)),
    "hull.silhouette_distance": lambda f, to: f(to(MASKS)),
    "hull.convex_outlines": lambda f, to: f(to(MASKS)),
    "hull.grown_masks": lambda f, to: f(to(MASKS[None]), (8, 8)),
    "sampling.lower_median": lambda f, to: f(to(POINTS), 1),
    "sampling.bilinear": lambda f, to: f(to(MAPS[0]), to(XY[0])),
    "hull.sampled": lambda f, to: [f(to(MAPS), to(XY), edge) for edge in ("zeros", "border")],
    "hull.beside_silhouette": lambda f, to: f(to(DISTANCE), to(XY[0])),
    "hull.hull_points": lambda f, to: f(to(DISTANCE), to(RIG), 20, seeded()),
    "hull_depth.hull_depth": lambda f, to: f(to(MASKS), to(RIG), 16),
    "hull_mesh.hull_mesh": lambda f, to: f(to(MASKS), to(RIG), 12).vertices.flatten().tolist(),
    "hull_depth.lifted": lambda f, to: f(
        to(torch.tensor([0.5, 0.5])), to(RIG.select([0])), to(DISTANCE), to(RIG), steps=64
    ),
    "hull.search_volume": lambda f, to: f(to(RIG)),
    "hull.search_grid": lambda f, to: f(to(RIG), 5),
    "hull.in_sight": lambda f, to: f(to(POINTS[0]), to(SURFACE[0]), to(RIG), 0.1),
    "hull.surface_points": lambda f, to: f(to(DISTANCE), to(RIG)),
    "keypoints.Keypoints3D.to_dict": lambda f, to: f(to(SOLID)),
    "keypoints.Keypoints2D.to_pixels": lambda f, to: f(to(FLAT), 8, 10),
    "keypoints.Keypoints2D.triangulate": lambda f, to: [f(to(FLAT), robust) for robust in (True, False)],
    "keypoints.Keypoints2D.lift": lambda f, to: f(to(FLAT), to(POINTS[1])),
    "keypoints.Keypoints2D.to_dict": lambda f, to: f(to(FLAT)),
    "rigs.Rig.views": lambda f, to: [f(rig(name), to(tensor(22, 48, 1, 12, 12))) for name in known_rigs()],
    "triangulation.reprojection_error": lambda f, to: f(to(OTHERS), to(XY), to(RIG)),
    "triangulation.triangulate": lambda f, to: f(to(XY), to(RIG), to(SEEN.float()), covariance=to(SPREAD)),
    "triangulation.robust_triangulate": lambda f, to: f(to(XY), to(RIG), to(SEEN.float())),
    "triangulation.point_covariance": lambda f, to: f(to(POINTS), to(RIG), to(SEEN.float()), to(POINTS[..., 0].abs())),
    "views.split_views": lambda f, to: f(to(tensor(23, 2, 6, 4)), 3, 2),
    "views.merge_views": lambda f, to: f(to(MAPS[:, :, 0]), Layout(3, 2)),
    "warps.Warp.apply": lambda f, to: f(to(WARP), to(FLAT_POINTS)),
    "warps.Warp.inverse": lambda f, to: f(to(WARP)),
    "warps.Warp.compose": lambda f, to: f(to(WARP), to(WARP)),
    "warps.warp_image": lambda f, to: [
        f(to(MAPS[:, 0]), to(WARP), fill) for fill in (None, 0.5, to(torch.linspace(0, 1, 5)))
    ],
    "warps.unwarp": lambda f, to: f(to(MAPS[:, 0]), to(WARP)),
    "warps.inside": lambda f, to: f(to(WARP), 8, 8),
    "losses.sharpening": lambda f, to: [f(to(MAPS), form=form) for form in ("mse", "kl")],
    "losses.localization": lambda f, to: f(to(MAPS)),
    "losses.grid_sharpening": lambda f, to: f(to(MAPS), Layout(3, 2)),
    "losses.pixel_consistency": lambda f, to: f(to(MAPS)),
    "losses.equivariance": lambda f, to: f(to(MAPS[:, 0]), to(MAPS[:, 1]), to(WARP)),
    "losses.geometric_consistency": lambda f, to: f(to(MAPS), to(RIG), to(SEEN.float())),
    "losses.spread": lambda f, to: f(to(MAPS)),
    "losses.separation": lambda f, to: f(to(POINTS), 0.5),
    "losses.on_object": lambda f, to: f(to(MAPS), to(MAPS[:, :, 0] > 0)),
    "losses.off_silhouette": lambda f, to: f(to(POINTS), to(RIG), to(MAPS[:, :, 0])),
    "losses.multi_view": lambda f, to: [
        f(to(MAPS), cameras=to(RIG), consistency=kind) for kind in ("geometric", "pixel")
    ],
    "losses.MultiViewLoss.as_dict": lambda f, to: f(losses.multi_view(to(MAPS), cameras=to(RIG))),
    "metrics.dual_alignment_score": lambda f, to: f(to(POINTS), to(TRUE), to(FEW_SEEN)),
    "metrics.label_free_correspondence": lambda f, to: f(to(POINTS), to(SOME)),
    "metrics.repeatability": lambda f, to: f(to(POINTS), to(OTHERS), to(POSE), 0.3, to(SOME), to(SOME)),
    "metrics.geodesic_iou": lambda f, to: f(
        to(POINTS), to(SURFACE), to(tensor(24, 4, 7, 30)), 0.3, to(FEW_SEEN), to(SOME)
    ),
    "metrics.keypointnet_iou": lambda f, to: f(to(AWAY), 0.3, to(FEW_SEEN), to(SOME)),
    "metrics.keypointnet_pck": lambda f, to: f(to(AWAY[:, 0]), 0.3, to(FEW_SEEN)),
    "metrics.keypointnet_map": lambda f, to: f(to(AWAY), to(tensor(27, 4, 5)), 0.3, to(FEW_SEEN), to(SOME)),
    "metrics.hungarian_iou": lambda f, to: f(to(POINTS), to(TRUE), 0.3, to(FEW_SEEN), to(SOME)),
    "metrics.snapped_iou": lambda f, to: f(to(POINTS), to(SURFACE), to(TRUE), 0.3, to(FEW_SEEN), to(SOME)),
    "metrics.apply_landmark_map": lambda f, to: f(to(tensor(25, 7, 10, 2)), to(FLAT_POINTS)),
    "metrics.apply_landmark_weights": lambda f, to: f(to(tensor(26, 7, 5)), to(POINTS)),
    "metrics.fit_landmark_map": lambda f, to: f(to(FLAT_POINTS), to(FLAT_TRUE), to(FEW_SEEN), 1.0),
    "metrics.fit_landmark_weights": lambda f, to: f(to(POINTS), to(TRUE), to(FEW_SEEN)),
    "metrics.landmark_regression_2d": lambda f, to: f(
        to(FLAT_POINTS), to(FLAT_TRUE), to(FLAT_OTHERS), to(FLAT_TRUE), to(FEW_SEEN), to(FEW_SEEN)
    ),
    "metrics.landmark_regression_3d": lambda f, to: f(
        to(POINTS), to(TRUE), to(OTHERS), to(TRUE), to(FEW_SEEN), to(FEW_SEEN)
    ),
    "metrics.mean_reprojection": lambda f, to: f(to(OTHERS), to(XY), to(RIG), to(SEEN)),
    "metrics.mean_reprojection_percent": lambda f, to: f(to(OTHERS), to(XY), to(RIG), 8, 8, to(SEEN)),
    "metrics.mean_reprojection_px": lambda f, to: f(to(OTHERS), to(XY), to(RIG), 8, 8, to(SEEN)),
    "metrics.on_object_rate": lambda f, to: f(to(XY), to(MAPS[:, :, 0] > 0), mask=to(SEEN)),
    "metrics.normalised_mean_error": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), to(BOXES[:, 0]), to(SOME)),
    "metrics.pck": lambda f, to: f(to(POINTS), to(OTHERS), 0.3, to(SOME)),
    "metrics.pck_per_image": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), to(BOXES), mask=to(SOME)),
    "metrics.pck_per_point": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), to(BOXES), mask=to(SOME)),
    "metrics.point_error": lambda f, to: f(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.best_rotation": lambda f, to: f(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.mpjpe": lambda f, to: f(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.n_mpjpe": lambda f, to: f(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.pa_mpjpe": lambda f, to: f(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.procrustes_align": lambda f, to: f(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.relative_pose_error": lambda f, to: f(to(POINTS), to(OTHERS), to(POSE[:, :3, :3]), to(SOME)),
    "metrics.fit_oriented_landmark_map": lambda f, to: f(
        to(FLAT_POINTS), to(FLAT_TRUE), [(0, 1)], to(FEW_SEEN), ridge=1.0
    ),
    "metrics.inter_eye_error": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), mask=to(SOME)),
    "metrics.mean_average_error": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), to(SOME)),
    "metrics.orientation_invariant_error": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), [(0, 1)], to(SOME)),
    "metrics.pck_at_pixels": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), to(SOME), 60.0),
    "metrics.visible_error": lambda f, to: f(to(FLAT_POINTS), to(FLAT_OTHERS), to(SOME)),
    "metrics.coverage": lambda f, to: f(to(POINTS), to(TRUE), 0.3, to(FEW_SEEN), to(SOME)),
    "metrics.extent_coverage": lambda f, to: f(to(POINTS), to(SURFACE), to(SOME)),
    "metrics.inclusivity": lambda f, to: f(to(POINTS), to(SURFACE), 0.3, to(SOME)),
    "metrics.distinct_repeatability": lambda f, to: f(to(POINTS), to(OTHERS), to(POSE), 0.5),
    "metrics.vertical_turn": lambda f, to: f(to(POINTS), to(OTHERS), to(SOME)),
    "metrics.without_misfits": lambda f, to: f(
        metrics.fit_landmark_weights, metrics.apply_landmark_weights, to(POINTS), to(TRUE), to(FEW_SEEN)
    ),
    "metrics.psnr": lambda f, to: f(*map(to, IMAGES)),
    "metrics.ssim": lambda f, to: f(*map(to, IMAGES)),
    "maps.view_maps": lambda f, to: f(to(LAYERS), Layout(3, 2), (4, 4)),
}

# Public names that need a model or files, and which test runs them on the device.
RUN_BY = {
    "alignment.transport": "test_discovery",
    "config.DiscoverConfig.settled": "test_discovery",
    "config.TrainConfig.reading": "test_training",
    "attention.capture_attention": "test_capture",
    "build.build_cache": "test_discovery_from_a_cache_on_disk",
    "constellation.Reading.cpu": "test_detection",
    "detector.KeypointDetector": "test_detection",
    "disk.open_cache": "test_discovery_from_a_cache_on_disk",
    "discover.discover": "test_discovery",
    "discover.discover_cached": "test_discovery_from_a_cache_on_disk",
    "evaluate.evaluate": "test_evaluation",
    "marking.mark": "test_the_command",
    "index.plan_cache": "test_discovery_from_a_cache_on_disk",
    "loading.load_backend": "test_generated_views",
    "recording.Recording.maps": "test_detection",
    "recording.Recording.without_pictures": "test_discovery",
    "tokens.Tokens": "test_tokens",
    "step.training_step": "test_joint_training_there_is_that_of_the_cpu",
    "train.train": "test_training",
}
# Public names that take tensors and are not run there, and why.
NOT_RUN = {
    "views.load_meshes": "rendered by a ray caster on the CPU",
    "dataset.ObjectViews.without_pictures": "leaves tensors out",
    "found.Detection.without_pictures": "leaves tensors out",
    "dataset.ObjectViews.framed_image": "cuts a picture, which is no tensor",
    "dataset.ObjectViews.shown_image": "cuts a picture, which is no tensor",
    "found.Detection.input_square": "cuts a picture, which is no tensor",
    "hull.HullGrid.of": "on the CPU, whatever the cameras are on",
    "hull.HullGrid.shell": "of a grid, which is on the CPU",
    **dict.fromkeys(
        (
            *(f"found.Detection.{name}" for name in ("crop", "photograph_size", "photograph_xy")),
            *("found.Detection.trusted", "found.Detection.withholding"),
            *(f"confidence.Confidence.{name}" for name in ("color", "of_noise", "to_dict", "verdict")),
            *(f"confidence.Confidence.{name}" for name in ("advice", "judgement", "words")),
        ),
        "of a detection, whose tensors are on the CPU",
    ),
}


def holds(kind, seen=()):
    """Whether a type is a tensor, or something with tensors on a device in it."""
    if not isinstance(kind, type):
        return any(holds(part, seen) for part in typing.get_args(kind))
    if issubclass(kind, AbstractArray):
        return kind.array_type is torch.Tensor
    if issubclass(kind, torch.Tensor | torch.nn.Module | DiskCache | torch.device) or kind is Backend:
        return True
    if kind in seen or not dataclasses.is_dataclass(kind):
        return any(holds(part, seen) for part in typing.get_args(kind))
    return any(holds(part, (*seen, kind)) for part in typing.get_type_hints(kind).values())


def takes_tensors(function):
    # Names of types that are imported for type checkers only.
    hints = typing.get_type_hints(function, localns={"keyorbit": keyorbit})
    return any(holds(kind) or name == "device" for name, kind in hints.items() if name != "return")


def public():
    """What users may call with tensors: the names of keyorbit's interface, of its two modules and of geometry."""
    found = {}
    geometry = importlib.import_module("keyorbit.geometry")
    for info in pkgutil.iter_modules(geometry.__path__, "keyorbit.geometry."):
        module = importlib.import_module(info.name)
        found |= {f"{info.name.rpartition('.')[2]}.{n}": v for n, v in vars(module).items() if own(n, v, info.name)}
    found |= {f"losses.{n}": v for n, v in vars(losses).items() if own(n, v, losses.__name__)}
    found |= {f"metrics.{n}": v for n, v in vars(metrics).items() if n in metrics.__all__ and callable(v)}
    interface = [getattr(keyorbit, name) for name in keyorbit.__all__ if name not in ("losses", "metrics")]
    return found | {f"{v.__module__.rpartition('.')[2]}.{v.__name__}": v for v in interface}


def own(name, value, module):
    return not name.startswith("_") and callable(value) and getattr(value, "__module__", None) == module


def wanted():
    """The functions among them that take tensors, and the methods of classes that hold some."""
    for name, value in public().items():
        if not inspect.isclass(value):
            if takes_tensors(value):
                yield name, value
        elif dataclasses.is_dataclass(value):
            for member, kind in vars(value).items():
                if member.startswith("_"):
                    continue
                if isinstance(kind, classmethod):
                    method = getattr(value, member)
                    if takes_tensors(kind.__func__):
                        yield f"{name}.{member}", method
                elif isinstance(kind, property):
                    if holds(value):
                        yield f"{name}.{member}", kind.fget
                elif inspect.isfunction(kind) and (holds(value) or takes_tensors(kind)):
                    yield f"{name}.{member}", kind
        elif issubclass(value, torch.nn.Module) or takes_tensors(value.__init__):
            yield name, value


FUNCTIONS = dict(wanted())


def test_nothing_public_is_left_out():
    known = [*TABLE, *RUN_BY, *NOT_RUN]
    assert len(known) == len(set(known))
    assert set(known) == FUNCTIONS.keys()


def test_the_tests_that_are_named_exist():
    tests = set()
    for path in Path(__file__).parent.glob("device_*.py"):
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
        tests |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assert set(RUN_BY.values()) <= tests


def leaves(thing):
    """Everything in a result, one by one."""
    if dataclasses.is_dataclass(thing):
        thing = [getattr(thing, field.name) for field in dataclasses.fields(thing)]
    if isinstance(thing, dict):
        thing = list(thing.values())
    if isinstance(thing, list | tuple):
        return [leaf for part in thing for leaf in leaves(part)]
    return [thing]


@pytest.mark.parametrize("name", TABLE)
def test_on_the_device_as_on_the_cpu(name):
    call, function = TABLE[name], FUNCTIONS[name]
    here, there = leaves(call(function, lambda x: x)), leaves(call(function, moved))
    assert len(here) == len(there) > 0
    for one, other in zip(here, there, strict=True):
        if isinstance(one, torch.Tensor):
            assert other.device.type == DEVICE
            torch.testing.assert_close(other.cpu(), one, **NEAR, equal_nan=True)
        elif isinstance(one, float):
            assert other == pytest.approx(one, rel=1e-4, abs=1e-4, nan_ok=True)
        else:
            assert other == one


def test_orthographic_cameras():
    (here, radius), (found, other) = search_volume(BOX), search_volume(moved(BOX))
    assert other == pytest.approx(radius)
    torch.testing.assert_close(found.cpu(), here, **NEAR)
    torch.testing.assert_close(moved(BOX).project(moved(POINTS)).cpu(), BOX.project(POINTS), **NEAR)


def test_cameras_may_stay_on_the_cpu():
    """What a rig gives is there, and meets what a model on a GPU gives."""
    points = moved(POINTS)
    for found, here in (
        (RIG.project(points), RIG.project(POINTS)),
        (RIG.depth(points), RIG.depth(POINTS)),
        (triangulated(moved(XY), RIG), triangulated(XY, RIG)),
    ):
        assert found.device.type == DEVICE
        torch.testing.assert_close(found.cpu(), here, **NEAR)


def test_tokens(tmp_path):
    there = Tokens(TOKENS.embedding).to(DEVICE)
    context = tensor(30, 2, 7, 4)
    assert torch.equal(there.append_to(context.to(DEVICE)).cpu(), TOKENS.append_to(context))
    # A run's tokens are on the CPU, and a model's context is not.
    assert torch.equal(TOKENS.append_to(context.to(DEVICE)).cpu(), TOKENS.append_to(context))
    for picks in (torch.tensor([2, 0]), torch.tensor([2, 0]).to(DEVICE)):
        assert torch.equal(there.select(picks).embedding.cpu(), TOKENS.embedding[[2, 0]])
    text = tensor(31, 9, 4)
    there.save(tmp_path / "tokens.safetensors")
    assert torch.equal(Tokens.load(tmp_path / "tokens.safetensors").embedding, TOKENS.embedding)
    made = (Tokens.initialise(rows, 3, seeded()).embedding for rows in (text, text.to(DEVICE)))
    torch.testing.assert_close(*made, **NEAR)
