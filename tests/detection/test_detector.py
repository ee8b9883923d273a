"""Detection: planted points come back, peaks are those of the heatmaps, settings that do not fit are refused."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from helpers.pictures import blocks, close, photograph
from keyorbit.detection.averages import averaged
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.config import PrepareConfig
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.evaluation.evaluate import detect_all
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.heatmaps import gaussian, normalize, soft_argmax_xy
from keyorbit.geometry.hull import beside_silhouette, silhouette_distance
from keyorbit.geometry.views import Layout
from keyorbit.geometry.warps import Warp, inside, random_warps, unwarp
from keyorbit.objects.dataset import ObjectViews, load_dataset
from keyorbit.objects.fingerprint import object_fingerprint
from keyorbit.objects.pictures import load_image, load_photograph, square
from keyorbit.output.write import write_detection
from keyorbit.values import from_values
from oracles.peaks import slow_peak

SMALL = DiscoverConfig(
    num_tokens=3, num_candidates=5, steps=6, batch=2, prepare=PrepareConfig(warps=1), save_every=2, planting=5
)


@pytest.fixture
def planted(backend, generator, monkeypatch):
    """Three points in space, of which every view's heatmaps are spots."""
    points = 0.5 * torch.rand(1, 3, 3, generator=generator) - 0.25
    heatmaps = normalize(gaussian(backend.cameras.project(points)[0], 32, 32, 1.5))

    def heatmaps_of(maps, layout, *settings):
        return (heatmaps if layout == backend.layout else heatmaps[:1]).expand(2, -1, 3, 32, 32)

    monkeypatch.setattr("keyorbit.detection.detector.token_heatmaps", heatmaps_of)
    return points


def test_detection_returns_planted_points(planted, backend, objects):
    points = planted
    detector = KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(noises=2, space="triangulation"))
    found = detector.detect_object(objects[0])
    torch.testing.assert_close(found.keypoints_3d.xyz, points[0], atol=1e-3, rtol=0)
    assert found.keypoints_3d.score.min() > 0.8
    assert found.keypoints_3d.visible.all()
    # Read from the evidence they are drawn onto the object, as every view sees it.
    detector.config = DetectConfig(noises=2)
    found = detector.detect_object(objects[0])
    beside = beside_silhouette(silhouette_distance(found.masks), backend.cameras.project(found.keypoints_3d.xyz))
    assert beside.max() < 2 / 16


def test_a_world_of_any_unit_and_origin_has_the_same_points(planted, backend, objects):
    """Places that the views agree on: of others, rounding decides which views are believed."""
    one, other = in_two_worlds(backend, objects[0], 37.0, (100.0, -5.0, 3.0), "triangulation")
    same_points(one, other)


@pytest.mark.parametrize(("unit", "origin"), [(37.0, (100.0, -5.0, 3.0)), (1e-3, (1.0, 2.0, 3.0))])
def test_so_has_the_evidence_of_any_tokens(unit, origin, backend, objects):
    same_points(*in_two_worlds(backend, objects[0], unit, origin, "evidence"))


def in_two_worlds(backend, thing, unit, origin, space):
    """The points of untrained tokens in the model's world, and those in another one, brought back."""
    detector = KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(noises=2, space=space))
    poses, origin = backend.cameras.world_to_camera.double(), torch.tensor(origin).double()
    poses[:, :3, 3] = unit * poses[:, :3, 3] - poses[:, :3, :3] @ origin
    there = Cameras(poses.float(), backend.cameras.intrinsics)
    one, other = (
        detector.detect_object(replace(thing, cameras=cameras)).keypoints_3d for cameras in (backend.cameras, there)
    )
    back = ((other.xyz - origin) / unit).float()
    return one, replace(other, xyz=back, covariance=other.covariance / unit**2)


def same_points(one, other):
    torch.testing.assert_close(other.xyz, one.xyz, atol=4e-4, rtol=0)
    torch.testing.assert_close(other.reprojection_error, one.reprojection_error, atol=1e-3, rtol=0)
    torch.testing.assert_close(other.covariance, one.covariance, atol=1e-6, rtol=0.05)


def test_places_on_a_recentred_picture_are_told_in_the_picture_itself(backend, tmp_path):
    picture = Image.new("RGBA", (96, 64))
    picture.paste(Image.fromarray(blocks()).resize((20, 15)), (30, 16))
    thing, detector = ObjectViews("small", picture), KeypointDetector(backend, untrained(backend, SMALL))
    far, near, as_it_is = (
        detector.detect_object(one)
        for one in (thing, ObjectViews("framed", thing.framed_image), replace(thing, recentre=False))
    )
    assert torch.equal(far.views, near.views)
    assert not torch.equal(far.views, as_it_is.views)
    scale, shift = thing.framing.scale_and_shift
    assert scale == pytest.approx(24 / 64)
    moved = partial(torch.add, torch.tensor(shift), alpha=scale)
    torch.testing.assert_close(far.keypoints_2d.input_xy, moved(near.keypoints_2d.input_xy))
    assert torch.equal(far.keypoints_2d.input_score, near.keypoints_2d.input_score)
    xyz = far.keypoints_3d.xyz
    cameras = far.input_camera.cameras, near.input_camera.cameras
    torch.testing.assert_close(cameras[0].project(xyz), moved(cameras[1].project(xyz)))
    torch.testing.assert_close(far.input_camera.residual, scale * near.input_camera.residual)
    torch.testing.assert_close(soft_argmax_xy(far.input_heatmaps), far.keypoints_2d.input_xy, atol=1 / 32, rtol=0)
    write_detection(tmp_path / "far", far)
    told = json.loads((tmp_path / "far" / "keypoints.json").read_text())["input"]
    assert told["recentred"]
    # Pixels of the picture: the middle square, and the one about the middle of the object.
    assert told["square"] == pytest.approx([16 / 96, 0, 80 / 96, 1], abs=1e-6)
    assert told["seen"] == pytest.approx([28 / 96, 11 / 64, 52 / 96, 35 / 64], abs=1e-6)
    assert told["xy"][0] == pytest.approx(far.keypoints_2d.input_xy[0].tolist(), abs=1e-6)
    shown = np.asarray(Image.open(tmp_path / "far" / "input.png"))
    assert shown.shape == (64, 64, 3)
    assert (shown[16:31, 14:34] != 127).any(-1).all()
    assert (np.delete(shown, range(16, 31), 0) == 127).all()
    write_detection(tmp_path / "as_it_is", as_it_is)
    told = json.loads((tmp_path / "as_it_is" / "keypoints.json").read_text())["input"]
    assert (told["recentred"], told["seen"]) == (False, told["square"])


def test_a_place_beside_the_object_has_no_score_on_the_input_picture(backend):
    detector = KeypointDetector(backend, untrained(backend, SMALL))
    picture = Image.new("RGBA", (64, 64))
    picture.paste("red", (32, 0, 64, 64))
    spots = gaussian(torch.tensor([[0.2, 0.5], [0.75, 0.5], [0.5, 0.5]]), 32, 32, 1.5)
    score = detector._input_score(normalize(spots), picture)
    assert score[0] == pytest.approx(0, abs=1e-3)
    assert score[1] > 0.9
    assert 0.4 < score[2] < 0.8
    # Of a photograph that does not tell what the object is, all counts.
    assert detector._input_score(normalize(spots), Image.fromarray(blocks()))[0] > 0.9


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


def test_an_unknown_reading_of_peaks_is_refused():
    with pytest.raises(InputError, match="peak cannot be 'mean'; it must be 'argmax' or 'soft' or 'window'"):
        from_values(DetectConfig, {"peak": "mean"}, "here")


@pytest.fixture
def tokens(backend):
    return untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3))


def test_a_picture_in_memory_is_detected_on_as_its_file_is(backend, tokens, tmp_path, monkeypatch):
    monkeypatch.setattr("keyorbit.objects.cutout.object_mask", lambda image: None)  # blocks have no background
    path = photograph(tmp_path / "a.png", 6)
    detector = KeypointDetector(backend, tokens)
    upright = detector.detect(Image.fromarray(blocks()))
    with Image.open(path) as file:
        for given in (path, file):
            found = detector.detect_object(given)
            torch.testing.assert_close(found.keypoints_2d.input_xy, upright.input_xy)
            assert close(square(found.input_image), blocks()[:, 8:32])
        made = [backend.generate([image], torch.Generator().manual_seed(0), 1) for image in (file, load_image(path))]
        assert torch.equal(*made)
    assert object_fingerprint(ObjectViews("a", load_image(path))) == object_fingerprint(
        ObjectViews("a", Image.fromarray(blocks()))
    )


def test_tokens_are_read_with_the_cameras_that_they_were_found_with(model_folder, tmp_path):
    chosen = load_backend(model_folder, cameras_of="v1.1")
    untrained(chosen, DiscoverConfig(num_tokens=2, num_candidates=2)).save(tmp_path / "tokens.safetensors")
    tokens = Tokens.load(tmp_path / "tokens.safetensors")
    assert tokens.info.cameras_of == "v1.1"
    KeypointDetector(chosen, tokens)
    with pytest.raises(InputError, match=r"load the model with rig='v1.1'"):
        KeypointDetector(load_backend(model_folder), tokens)


def test_a_recording_of_other_settings_or_another_model_is_refused(backend, objects):
    detector = KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(1))
    recording = detector.record(objects[0])
    with pytest.raises(InputError, match="other settings"):
        KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(2)).read(recording)
    with pytest.raises(InputError, match="another model"):
        detector.read(replace(recording, fingerprint="other"))
    bare = recording.without_pictures()
    assert bare.views.shape[0] == 0
    assert bare.thing.views is None
    tokens = torch.rand(2, 16)
    for ours, theirs in zip(bare.maps(tokens), recording.maps(tokens), strict=True):
        assert torch.equal(ours.maps, theirs.maps)


def test_maps_are_means_over_the_draws_of_noise(backend, objects):
    """On the views and on the input picture, as from each version alone."""
    detector = KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(noises=3))
    recording = detector.record(objects[0])
    one = KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(noises=1))
    alone = []
    for i in range(3):
        queries = {
            which: replace(cache, versions=1, layers=tuple(replace(x, query=x.query[i : i + 1]) for x in cache.layers))
            for which, cache in recording.queries.items()
        }
        shown = replace(recording.shown, warps=recording.shown.warps[i : i + 1], masks=recording.shown.masks[i : i + 1])
        alone.append(one.read(replace(recording, queries=queries, shown=shown, config=one.recording)))
    found = detector.read(recording)
    for name in ("heatmaps", "input_heatmaps"):
        each = torch.stack([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(found, name), each.mean(0))
        assert not torch.allclose(each[0], each[1], atol=1e-3)


def test_objects_that_are_detected_together_are_those_detected_alone(backend, objects, monkeypatch):
    """Drawn as if alone: every object has the generator of the detector's seed."""
    monkeypatch.setattr(backend, "generate", partial(backend.generate, steps=2))
    detector = KeypointDetector(backend, untrained(backend, SMALL), DetectConfig(noises=2, seed=5))
    things = [objects[0], ObjectViews("bare", objects[1].input_image), objects[2]]
    done, sizes = [], []
    hook = backend.unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    together = detect_all(detector, things, lambda *call: done.append(call), batch=2)
    hook.remove()
    assert sizes == [2] * 4 + [4] * 2 + [2] * 2  # two steps for the second; two noises of two objects, then of the last
    assert done == [(1, 3), (2, 3), (3, 3)]
    for found, thing in zip(together, things, strict=True):
        alone = detector.detect_object(thing)
        assert found.name == alone.name
        for name in ("views", "heatmaps", "input_heatmaps"):
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(found.keypoints_2d.xy, alone.keypoints_2d.xy, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.keypoints_3d.xyz, alone.keypoints_3d.xyz, atol=1e-4, rtol=0)


def test_threads_share_a_model(backend, tokens, objects):
    """Capturing changes the model: they take turns, and each finds what it would have found alone."""
    detector = KeypointDetector(backend, tokens)
    alone = [detector.detect_object(thing) for thing in objects]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(detector.detect_object, [*objects, *objects]))
    for one, other in zip(found, [*alone, *alone], strict=True):
        assert torch.equal(one.heatmaps, other.heatmaps)
        assert torch.equal(one.keypoints_2d.xy, other.keypoints_2d.xy)


def test_a_list_of_pictures_and_a_data_set_are_detected_in_order(backend, tokens, chairs, objects):
    detector = KeypointDetector(backend, tokens)
    found = detector.detect_object(load_dataset(chairs), batch=2)
    assert [one.name for one in found] == [thing.name for thing in objects]
    both = detector.detect([chairs / objects[2].name, objects[0]])
    for one, other in zip(both, (found[2], found[0]), strict=True):
        torch.testing.assert_close(one.xy, other.keypoints_2d.xy, atol=1e-4, rtol=0)
    assert detector.detect([]) == []
    with pytest.raises(InputError, match="picture_1 cannot be None"):
        detector.detect([objects[0], None])


def test_a_detection_tells_where_its_photograph_is_from_and_what_it_was_made_with(backend, tokens, tmp_path):
    """A wide photograph on its side: places in its own pixels, those of the upright picture."""
    on_its_side = Image.Exif()
    on_its_side[ExifTags.Base.Orientation] = 6
    Image.fromarray(blocks()).resize((64, 24)).rotate(90, expand=True).save(tmp_path / "a.jpg", exif=on_its_side)
    tokens.save(tmp_path / "t.safetensors")
    kept = Tokens.load(tmp_path / "t.safetensors")
    found = KeypointDetector(backend, kept, DetectConfig(seed=3)).detect_object(tmp_path / "a.jpg")
    left, _, right, _ = found.crop
    assert (found.photograph_size, right - left) == ((64, 24), 24)
    write_detection(tmp_path / "out", found)
    told = json.loads((tmp_path / "out" / "keypoints.json").read_text())
    whole = told["photograph"]
    assert (whole["file"], whole["width"], whole["height"]) == (str(tmp_path / "a.jpg"), 64, 24)
    assert whole["square"] == pytest.approx([left / 64, 0, right / 64, 1], abs=1e-6)
    np.testing.assert_allclose(whole["pixels"], np.array(told["input"]["xy"]) * 24 + [left, 0], atol=2e-3)
    made = told["made_with"]
    assert (made["model"], made["model_fingerprint"]) == (backend.name, backend.fingerprint)
    assert (made["tokens"], made["tokens_file"]) == (tokens.fingerprint, str(tmp_path / "t.safetensors"))
    assert (made["settings"]["seed"], made["version"], made["maps"]) == (3, version("keyorbit"), "logits")
    assert kept.fingerprint == tokens.fingerprint != tokens.select(torch.tensor([0, 1])).fingerprint


def test_places_are_told_in_the_pixels_of_a_photograph_that_was_reduced(stable_diffusion, tmp_path, monkeypatch):
    """Of a single view, too, whose picture is the middle square itself."""
    monkeypatch.setattr("keyorbit.objects.pictures._SHORTER", 10)
    Image.fromarray(blocks()).resize((160, 80)).save(tmp_path / "a.png")
    image, source = load_photograph(tmp_path / "a.png", 2000)
    assert image.size == (32, 16)
    detector = KeypointDetector(stable_diffusion, untrained(stable_diffusion, SMALL))
    found = detector.detect_object(ObjectViews("a", image, source=source))
    assert found.photograph_size == (160, 80)
    expected = found.keypoints_2d.xy[0] * 80 + torch.tensor([40.0, 0.0])
    torch.testing.assert_close(found.photograph_xy, expected)


def test_tokens_of_another_width_are_refused(backend):
    with pytest.raises(InputError, match=r"these tokens have width 3, and the model .* takes \d+"):
        KeypointDetector(backend, Tokens(torch.zeros(4, 3)))


def test_blind_draws_do_not_count_on_the_input_picture(backend, objects):
    """Where they would show an empty one; and one draw at least sees it."""
    tokens = untrained(backend, SMALL)
    one, half = (KeypointDetector(backend, tokens, config) for config in (DetectConfig(1), DetectConfig(2, blind=1)))
    alone, both = one.detect_object(objects[0]), half.detect_object(objects[0])
    torch.testing.assert_close(both.input_heatmaps.sum((-2, -1)), torch.ones(3))
    assert not torch.allclose(both.heatmaps, alone.heatmaps, atol=1e-3)
    maps = half._heatmaps(half.record(objects[0]), "condition", Layout(1, 1))
    torch.testing.assert_close(both.input_heatmaps, maps[0, 0, :3])
    with pytest.raises(InputError, match="blind is 2: of 2 noises it may be 0 to 1"):
        DetectConfig(2, blind=2)
