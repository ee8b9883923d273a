"""Other tools' own readers take the files: pycocotools COCO, rerun its recordings."""

import contextlib
import io
import sys

import numpy as np
import pytest
import torch

from keyorbit.errors import InputError
from keyorbit.geometry.keypoints import Keypoints2D
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.output.formats import coco_dict
from keyorbit.output.palette import palette, rgb
from keyorbit.output.rerun_log import write_rerun
from keyorbit.storage.files import write_json


@pytest.fixture
def found(generator):
    cameras = zero123plus_cameras("v1.2")
    xyz = torch.rand(5, 3, generator=generator) * 0.6 - 0.3
    score = torch.rand(6, 5, generator=generator) * 0.8 + 0.2
    score[:, 1] = 0
    return Keypoints2D(cameras.project(xyz), score, cameras)


def test_pycocotools_reads_and_scores_coco(found, tmp_path):
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools comes with [dev]")
    from pycocotools.cocoeval import COCOeval

    items = [(f"view_{i}.png", 64, 64, found.xy[i], found.score[i]) for i in range(6)]
    write_json(tmp_path / "coco.json", coco_dict(items, 5, skeleton=[(0, 2), (2, 4)]))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_module.COCO(tmp_path / "coco.json")
        guess = truth.loadRes([a | {"category_id": 1} for a in truth.dataset["annotations"]])
        run = COCOeval(truth, guess, "keypoints")
        run.params.kpt_oks_sigmas = np.full(5, 0.05)
        run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
        run.evaluate()
        run.accumulate()
    assert truth.loadCats([1])[0]["keypoints"][3] == "keypoint_03"
    assert truth.loadCats([1])[0]["skeleton"] == [[1, 3], [3, 5]]
    assert [a["num_keypoints"] for a in truth.loadAnns(truth.getAnnIds())] == [4] * 6
    precision = run.eval["precision"]
    assert precision.size
    np.testing.assert_array_equal(precision, 1)


def test_rerun_reads_points_cameras_and_pictures(found, tmp_path):
    pytest.importorskip("rerun", reason="rerun is an extra: pip install 'keyorbit[rerun]'")
    from rerun.chunk import RrdReader

    pictures = [np.full((16, 16, 3), i, np.uint8) for i in range(6)]
    points = found.triangulate()
    write_rerun(tmp_path / "keypoints.rrd", found, points, pictures, [(0, 2)])
    assert [path.name for path in tmp_path.iterdir()] == ["keypoints.rrd"]
    seen = {}
    for chunk in RrdReader(tmp_path / "keypoints.rrd").stream():
        table = chunk.to_record_batch().to_pydict()
        seen.setdefault(chunk.entity_path, {}).update({k.split(":")[-1]: v for k, v in table.items()})
    views = {f"/world/view_{i}" for i in range(6)}
    expected = {"/world", "/world/keypoints", "/world/skeleton"} | views | {f"{v}/image" for v in views}
    assert set(seen) == expected | {f"{v}/image/keypoints" for v in views}
    entry = seen["/world/keypoints"]
    kept = [0, 2, 3, 4]
    np.testing.assert_allclose(entry["positions"][0], points.xyz[kept], atol=1e-6)
    assert entry["labels"][0] == [f"keypoint_{k:02d}" for k in kept]
    assert entry["colors"][0] == [int("".join(f"{v:02x}" for v in rgb(palette(5)[k])) + "ff", 16) for k in kept]


def test_without_rerun_a_sentence_says_what_to_install(found, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(InputError, match=r"keyorbit\[rerun\]"):
        write_rerun(tmp_path / "keypoints.rrd", found, None, [])
    assert list(tmp_path.iterdir()) == []
