"""The wheel holds the package, with the model, examples and pages that it needs, and nothing else."""

from pathlib import Path
from zipfile import ZipFile

import pytest

import keyorbit

build = pytest.importorskip("hatchling.build")
PACKAGE = Path(keyorbit.__file__).parent
ROOT = PACKAGE.parents[1]
KINDS = {".py", ".pyi", ".typed", ".json", ".safetensors", ".png", ".html", ".css", ".js", ".md", ".txt"}


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with ZipFile(tmp_path / build.build_wheel(str(tmp_path))) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        beside = {name.split("/", 1)[1] for name in wheel.namelist() if ".dist-info/" in name}
        (entry,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert names == {path.relative_to(PACKAGE.parent).as_posix() for path in there}
    assert {Path(name).suffix for name in names} == KINDS
    for needed in (
        "assets/tiny/model_index.json",
        "assets/examples/tokens.safetensors",
        "output/page/viewer.js",
        "py.typed",
    ):
        assert f"keyorbit/{needed}" in names
    assert beside == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert "keyorbit = keyorbit.cli:main" in entry
