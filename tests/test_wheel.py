"""The wheel holds the package, with the model, examples and pages that it needs, and nothing else."""

import re
import tomllib
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
        *(f"assets/examples/tokens{kind}.safetensors" for kind in ("", "_car", "_aeroplane", "_animal")),
        "output/page/viewer.js",
        "py.typed",
    ):
        assert f"keyorbit/{needed}" in names
    assert beside == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert "keyorbit = keyorbit.cli:main" in entry


def test_the_version_is_the_same_everywhere():
    """It stands in pyproject.toml; what cites it is a copy, and the changelog begins with it or what follows it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for name, line in {"CITATION.cff": f"version: {version}", "README.md": f"  version = {{{version}}},"}.items():
        assert line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert "Unreleased" in sections[:1] or sections[:1] == [version]


def test_the_release_workflow_is_yaml_and_tries_the_oldest_torch_that_the_wheel_takes():
    """Its line reads the wheel's metadata, so the bound must be written as that line expects."""
    yaml = pytest.importorskip("yaml")
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["release"]["needs"] == "try"
    assert workflow["jobs"]["try"]["needs"] == "build"
    tried = {(one["python"], one["torch"]) for one in workflow["jobs"]["try"]["strategy"]["matrix"]["include"]}
    assert {python for python, _ in tried} == {"3.11", "3.12", "3.13"}
    assert {torch for _, torch in tried} == {"oldest", "newest"}
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert len([line for line in wanted if re.fullmatch(r"torch>=[\d.]+", line)]) == 1
    yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
