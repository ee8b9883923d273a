"""The benchmark of upward axes runs, and counts what is judged right."""

import sys

import trimesh


def test_a_table_of_kinds_is_printed(benchmark_script, tmp_path, monkeypatch, capsys):
    foot = trimesh.creation.box((1, 0.1, 1)).apply_translation((0, 0.05, 0))
    tower = trimesh.util.concatenate([foot, trimesh.creation.box((0.1, 2, 0.1)).apply_translation((0, 1, 0))])
    (tmp_path / "tower").mkdir()
    tower.export(tmp_path / "tower" / "a.glb")
    upright = benchmark_script("upright")
    assert upright.judged_right([1.0, -1.0, 1.0]) == [True, True, False]
    monkeypatch.setattr(sys, "argv", ["upright.py", str(tmp_path)])
    upright.main()
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "all" in line and "100.0" in line]
    assert row.count("100.0") == 3
    assert "3 of 3" in row
