"""Detection and what follows on the device: they run, and find what they find on the CPU."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import ControlNetModel
from PIL import Image

from keyorbit.app.layers import attention_by_layer
from keyorbit.app.studio import Studio
from keyorbit.detection.choices import PEAKS
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.detection.input_camera import search_input_camera
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.text import encode_phrases
from keyorbit.diffusion.inspection.cost import Subject, measure
from keyorbit.diffusion.inspection.drift import measure_drift
from keyorbit.diffusion.inspection.variants import CAPTURES
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.evaluation.evaluate import detect_all, evaluate
from keyorbit.evaluation.landmarks import view_boxes
from keyorbit.evaluation.protocol import score
from keyorbit.evaluation.reducing import outcome_of
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.objects.dataset import ObjectViews
from keyorbit.output.choices import FORMATS
from keyorbit.output.page.panels import make_panel, render_panel
from keyorbit.output.skeleton import co_moving_skeleton
from keyorbit.output.write import write_detection
from keyorbit.storage.outputs import MARKER
from other_device.common import DEVICE, FEW, NEAR, moved

pytestmark = pytest.mark.filterwarnings("error:.*appears to be a view operator")


def seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("control", [False, True], ids=["", "controlnet"])
def test_generated_views(control, backend, model_folder, objects, tmp_path):
    """Views, and latents of a ControlNet that has something to say: fresh ones end in zeros."""
    more = {}
    if control:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            controlnet = ControlNetModel.from_unet(backend.unet, conditioning_embedding_out_channels=(8, 16))
            for name, weight in controlnet.named_parameters():
                if "controlnet" in name:
                    torch.nn.init.normal_(weight, std=0.3)
        controlnet.save_pretrained(tmp_path)
        more = {"depth_images": Image.effect_noise((32, 48), 50).convert("RGB"), "decode": False}
    depth = tmp_path if control else None
    models = [load_backend(model_folder, device, "float32", controlnet=depth) for device in ("cpu", DEVICE)]
    tokens = torch.randn(2, 16, generator=seeded())
    here, found = (m.generate([objects[0].input_image], seeded(), 2, tokens=tokens, **more) for m in models)
    assert found.device.type == DEVICE
    torch.testing.assert_close(found.cpu(), here, **NEAR)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision(dtype, model_folder, objects, tokens):
    """The same rounding on both, but of sums in another order."""
    models = [load_backend(model_folder, device, dtype) for device in ("cpu", DEVICE)]
    config = DetectConfig(noises=1)
    here, found = (KeypointDetector(model, tokens, config).detect_object(objects[0]) for model in models)
    torch.testing.assert_close(found.keypoints_2d.xy, here.keypoints_2d.xy, atol=0.03, rtol=0)


def test_what_a_backend_offers_besides(there, backend, stable_diffusion, stable_diffusion_there):
    """Its parts, which a notebook may call; and one context row for each phrase, as in the tiny model's recipe."""
    for here, found in ((backend, there), (stable_diffusion, stable_diffusion_there)):
        pictures = torch.rand(1, 3, *(side * here.view_size for side in (here.layout.rows, here.layout.cols)))
        offered = []
        for model, put in ((here, lambda x: x), (found, moved)):
            latents = model.encode_images(pictures)  # as they come from files
            timestep = put(torch.tensor([300]))
            noised = model.add_noise(latents, put(torch.ones(latents.shape)), timestep)
            words = model.parts.tokenizer, model.parts.text_encoder, ["a leg", "the back of a chair"]
            offered.append([latents, model.decode(latents), noised, model.encode_prompts(["a chair"])])
            offered[-1] += [encode_phrases(*words), model.text_statistics(seeded())]
            if model.layout.num_views == 1:
                offered[-1].append(model.clean_latents(noised, latents, 300))
        for one, other in zip(*offered, strict=True):
            assert other.device.type == DEVICE
            torch.testing.assert_close(other.cpu(), one, **NEAR)


@pytest.mark.parametrize(
    ("space", "given"),
    [("constellation", True), ("evidence", True), ("triangulation", True), ("constellation", False)],
)
def test_detection(space, given, backend, there, objects, tokens, few_denoising_steps):
    thing = objects[0] if given else ObjectViews("picture", objects[0].input_image)
    config = DetectConfig(noises=2, space=space)
    here, found = (KeypointDetector(model, tokens, config).detect_object(thing) for model in (backend, there))
    torch.testing.assert_close(found.keypoints_3d.xyz, here.keypoints_3d.xyz, **NEAR)
    torch.testing.assert_close(found.keypoints_3d.score, here.keypoints_3d.score, **NEAR)
    torch.testing.assert_close(found.keypoints_2d.xy, here.keypoints_2d.xy, **NEAR)
    on_device = [name for name, part in vars(found).items() if isinstance(part, torch.Tensor) and not part.is_cpu]
    assert on_device == []
    torch.testing.assert_close(found.input_camera.elevation_deg, here.input_camera.elevation_deg, atol=0.1, rtol=0)


@pytest.mark.parametrize("peak", PEAKS)
def test_every_peak(peak, backend, there, objects, tokens):
    config = DetectConfig(noises=1, warps=1, peak=peak)
    here, found = (KeypointDetector(model, tokens, config).detect_object(objects[0]) for model in (backend, there))
    torch.testing.assert_close(found.keypoints_2d.xy, here.keypoints_2d.xy, **NEAR)


def test_evaluation(backend, there, objects, tokens):
    found = [detect_all(KeypointDetector(m, tokens, DetectConfig(noises=1)), objects) for m in (backend, there)]
    here, there = (evaluate(some, objects, moved=(some, objects)).to_dict()["measures"] for some in found)
    assert sum(value is not None for value in here.values()) > 15
    assert there == pytest.approx(here, abs=1e-3)


def test_detection_of_a_single_view(stable_diffusion, stable_diffusion_there, objects):
    picture = ObjectViews("picture", objects[0].input_image)
    tokens = untrained(stable_diffusion, FEW)
    here, found = (KeypointDetector(m, tokens).detect(picture).xy for m in (stable_diffusion, stable_diffusion_there))
    torch.testing.assert_close(found, here, **NEAR)


def test_evaluation_of_what_was_moved(detection, objects):
    given = [detection], [objects[0]]
    here, found = (evaluate(*map(put, given)).to_dict()["measures"] for put in (lambda x: x, moved))
    assert found == pytest.approx(here, abs=1e-3)


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
    here, there = (view_boxes(outcome_of(one), truth, slice(1, None)) for one in (found, moved(found)))
    assert here[0].tolist() == [0, 0]
    assert torch.equal(there.cpu(), here)
    other = replace(truth, keypoints_2d=truth.keypoints_2d[:3], visible=truth.visible[:3])  # of fewer views
    assert view_boxes(outcome_of(moved(found)), moved(other), slice(1, None)).device.type == DEVICE


def test_drift(backend, there):
    here, found = (measure_drift(model, counts=(2,), norms=(1.0,), steps=1)[0] for model in (backend, there))
    assert found.isolated_equal
    assert found.psnr == pytest.approx(here.psnr, abs=0.1)


def test_cost_of_random_weights(model_folder):
    """Those of a folder are in `device_commands.py`."""
    for cost in measure(Subject(str(model_folder), 4, True, DEVICE), CAPTURES, repeats=1):
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


def test_the_studio_of_the_app(there, tokens, objects, tmp_path, monkeypatch, few_denoising_steps):
    monkeypatch.setattr("keyorbit.app.studio.DiscoverConfig", partial(DiscoverConfig, planting=2, exemplars=1))
    studio, picture = Studio(there, tokens, tmp_path), objects[0].input_image
    errand = studio.visits.errand("me")
    page, files, found = studio.detect(ObjectViews("picture", picture), tokens, errand, studio.progress())
    assert "<section" in page
    assert len(files) == 4
    assert found.keypoints_3d.xyz.device.type == "cpu"
    assert "<tr>" in studio.attention(picture, tokens, errand, 1)
    assert "<section" in studio.preview(objects[0], tokens, errand)
    assert studio.save(tokens, errand)
    job = studio.start(objects[:1], 2, 1)
    assert job.finished.wait(120)
    assert job.error is None
    assert len(job.tokens) == 2


def test_other_functions_of_tensors_that_were_moved():
    """Which commands call with what is on the CPU, and a notebook may call with what is not."""
    rig, points, maps = zero123plus_cameras(), torch.rand(5, 3, generator=seeded()) - 0.5, torch.full((5, 8, 8), 1 / 64)
    xy, ones = rig.project(points)[0], torch.ones(5)
    given = points, ones, maps, xy, rig
    here, found = (search_input_camera(*map(put, given)) for put in (lambda x: x, moved))
    torch.testing.assert_close(found.elevation_deg.cpu(), here.elevation_deg, atol=0.1, rtol=0)
    several = points + torch.rand(4, 5, 3, generator=seeded())
    assert co_moving_skeleton(moved(several)) == co_moving_skeleton(several)
    flat, known = several[..., :2], torch.ones(4, 5, dtype=torch.bool)
    given = flat, flat.flip(1), known, flat, flat, known
    assert score("taichi", *map(moved, given)) == pytest.approx(score("taichi", *given), rel=1e-4)
