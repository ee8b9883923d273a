"""Results tell what they are in a line, whatever they hold."""

import io
from dataclasses import replace
from html import escape, unescape

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.evaluation.evaluate import ObjectScores, evaluate
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.storage.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def results(backend, objects):
    tokens = untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3))
    detector = KeypointDetector(backend, tokens)
    recording = detector.record(objects[0])
    found = detector.detect_object(objects)
    return {
        "tokens": tokens,
        "recording": recording,
        "found": found[0],
        "flat": found[0].keypoints_2d,
        "points": found[0].keypoints_3d,
        "scores": evaluate(found, objects),
        "thing": objects[0],
        "backend": backend,
    }


def test_results_tell_what_they_are_in_a_line(results, stable_diffusion, objects):
    assert all(len(repr(one)) < 160 for name, one in results.items() if name != "backend")
    assert repr(results["tokens"]).startswith("Tokens(3 of width ")
    assert [k.index for k in results["found"][-2:]] == [1, 2]
    assert [k.index for k in results["found"][::-2]] == [2, 0]
    assert repr(results["found"]).startswith(f"Detection({objects[0].name!r}, 3 keypoints, 6 views, in 3D with a repro")
    assert repr(results["flat"]).startswith("Keypoints2D(6 views, 3 keypoints, scores 0.")
    assert repr(results["points"]).startswith("Keypoints3D(3 keypoints, scores 0.")
    assert repr(results["scores"]).startswith("Evaluation(3 objects, landmarks within ")
    assert repr(results["recording"]).startswith(f"Recording({objects[0].name!r}, 6 views, ")
    assert (
        repr(results["thing"])
        == f"ObjectViews({objects[0].name!r}, 16x16 RGB, 6 views, with cameras, 12 true landmarks)"
    )
    tokens = untrained(stable_diffusion, DiscoverConfig(num_tokens=2, num_candidates=2))
    flat = KeypointDetector(stable_diffusion, tokens).detect_object(objects[0])
    assert repr(flat) == f"Detection({objects[0].name!r}, 2 keypoints, 1 view, in 2D only)"
    empty = Keypoints2D(torch.zeros(0, 0, 2), torch.zeros(0, 0))
    assert repr(empty) == "Keypoints2D(0 views, 0 keypoints)"


def test_results_are_kept_in_files(results, tmp_path):
    """Everything comes back: tensors, pictures, cameras, what it was made with."""
    for name in ("found", "flat", "points", "recording", "scores", "tokens"):
        one = results[name]
        one.save(tmp_path / name)
        again = type(one).load(tmp_path / name)
        assert repr(again) == repr(one)
        if name != "tokens":
            same(one.numpy(), again.numpy())
    found = results["found"]
    again = type(found).load(tmp_path / "found")
    assert again.made_with == found.made_with
    assert again.input_image.tobytes() == found.input_image.tobytes()
    detector = KeypointDetector(results["backend"], results["tokens"])
    read = detector.read(type(results["recording"]).load(tmp_path / "recording"))
    # What was read from a file lies elsewhere in memory, where sums may be made in another order.
    torch.testing.assert_close(read.keypoints_2d.xy, found.keypoints_2d.xy, atol=1e-5, rtol=0)


def same(first, second):
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            same(first[name], second[name])
    elif isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, tuple):
        for one, other in zip(first, second, strict=True):
            same(one, other)
    elif isinstance(first, Image.Image):
        assert np.array_equal(np.asarray(first), np.asarray(second))
    else:
        assert first == second


def test_a_file_that_holds_another_result_or_none_is_refused(results, tmp_path):
    results["flat"].save(tmp_path / "flat")
    results["tokens"].save(tmp_path / "tokens")
    (tmp_path / "text").write_text("text")
    points = type(results["points"])
    for name, words in (
        ("flat", "holds no Keypoints3D that keyorbit saved, but 'Keypoints2D'"),
        ("tokens", "holds no Keypoints3D"),
        ("text", "is not a whole keyorbit checkpoint"),
        ("none", "no checkpoint at"),
    ):
        with pytest.raises(InputError, match=words):
            points.load(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors, values: values.pop("xy"), "lacks xy"),
        (lambda tensors, values: tensors.pop("xy"), "lacks the tensor 'xy'"),
        (lambda tensors, values: tensors.update(xy=torch.zeros(2, 3)), "xy cannot be a tensor .* and shape"),
        (lambda tensors, values: tensors.update(xy=torch.zeros(6, 3, 2, dtype=int)), "xy cannot be a tensor"),
        (lambda tensors, values: tensors.update(score=torch.zeros(5, 3)), "score cannot be a tensor"),
        (lambda tensors, values: values.update(xy=None), "xy"),
        (lambda tensors, values: values.update(xy="picture:xy"), "xy cannot be a picture"),
        (lambda tensors, values: values["cameras"].update(orthographic=3), "orthographic cannot be 3"),
        (lambda tensors, values: values.update(cameras=[]), "cameras"),
        (lambda tensors, values: values.update(cameras=7), "cameras"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_told_by_its_field(results, tmp_path, change, words):
    results["flat"].save(tmp_path / "flat")
    tensors, header = load_checkpoint(tmp_path / "flat")
    change(tensors, header["values"])
    save_checkpoint(tmp_path / "flat", tensors, header)
    with pytest.raises(InputError, match=words):
        type(results["flat"]).load(tmp_path / "flat")


def test_results_are_moved_and_given_as_arrays(results):
    found = results["found"].to(dtype=torch.float64)
    assert found.keypoints_2d.cameras.intrinsics.dtype == found.heatmaps.dtype == torch.float64
    assert found.masks.dtype == torch.bool
    moved = results["recording"].to("meta")
    assert moved.queries["grid"].layers[0].query.device.type == "meta"
    arrays = results["points"].numpy()
    assert arrays["xyz"].shape == (3, 3)
    assert results["scores"].numpy()["landmark_3d"].shape == (3,)
    assert np.isnan(results["scores"].numpy()["landmark_2d"]).all()
    assert results["tokens"].numpy().shape == tuple(results["tokens"].embedding.shape)


def test_results_have_a_length_and_parts(results, backend):
    found, flat, points, scores = (results[name] for name in ("found", "flat", "points", "scores"))
    assert [len(results[name]) for name in ("found", "flat", "points", "scores", "tokens")] == [3, 6, 3, 3, 3]
    assert [keypoint.index for keypoint in found] == [0, 1, 2]
    assert found[-1].xyz == tuple(points.xyz[2].tolist())
    assert torch.equal(found[1].xy, flat.xy[:, 1])
    named = replace(found, names=("left", "", "right"))
    assert named["right"].index == 2
    for wrong in ("", "middle"):
        with pytest.raises(KeyError):
            named[wrong]
    for one in (found, flat, points, scores, results["tokens"]):
        with pytest.raises(IndexError):
            one[99]
    assert torch.equal(flat[2].xy, flat.xy[2:3])
    assert torch.equal(
        flat[[0, 3]].triangulate().xyz,
        Keypoints2D(flat.xy[[0, 3]], flat.score[[0, 3]], flat.cameras.select([0, 3])).triangulate().xyz,
    )
    assert torch.equal(points[points.score >= 0].xyz, points.xyz)
    assert torch.equal(points[[2, 0]].residual, points.residual[:, [2, 0]])
    assert [row.name for row in scores] == [scores[row.name].name for row in scores]
    assert torch.equal(results["tokens"][1].embedding, results["tokens"].embedding[1:2])
    assert len(results["tokens"][:2]) == 2


def test_results_show_themselves(results):
    for name in ("found", "flat", "points", "scores", "tokens", "recording"):
        picture = io.BytesIO()
        results[name].plot().savefig(picture)
        assert np.asarray(Image.open(picture).convert("L")).std() > 5, name
        assert escape(repr(results[name])) in results[name]._repr_html_()
    page = unescape(results["found"]._repr_html_())
    assert "<iframe" in page
    assert page.count('src="data:image/') >= 7  # the input picture and six views
    assert "data-ko-scene" in page
    assert "class Viewer" in page
    places = replace(results["tokens"].info, places=((0.0, 0.0, 0.1), (0.2, 0.1, 0.0), (0.0, 0.3, 0.0)))
    Tokens(results["tokens"].embedding, places).plot()
    assert (
        "<script>" not in replace(results["scores"], objects=(ObjectScores("<script>", 1, None, None),))._repr_html_()
    )
