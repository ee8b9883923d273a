"""The benchmark of cut-outs, on few and small pictures."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("cv2")


def test_photographs_are_made_judged_and_shown(benchmark_script, tmp_path, monkeypatch):
    script = benchmark_script("photographs")
    monkeypatch.setattr(script, "RENDERED", 48)
    one, again = (list(script.photographs(3, 5, [], [])) for _ in range(2))
    assert [a.name for a in one] == ["chair 5 before gradient", "animal 6 before clouds", "car 7 before planks"]
    assert all(a.picture.tobytes() == b.picture.tobytes() for a, b in zip(one, again, strict=True))
    # The truth itself has the whole overlap, its negative none.
    true = np.asarray(one[0].truth.getchannel("A"), float) / 255
    assert script.judged(one[0], lambda _: true, False)["iou"] > 0.99
    assert script.judged(one[0], lambda _: 1 - true, False)["iou"] < 0.1
    assert script.sheet(one[:2], columns=2).size == (4 * 160, 160)
    monkeypatch.setattr(sys, "argv", ["photographs.py", "--objects", "1", "--json", str(tmp_path / "a.json")])
    script.main()
    rows = json.loads((tmp_path / "a.json").read_text())
    assert {row["way"] for row in rows} == {"rectangle", "grabcut"}
    assert len(rows) == 2
