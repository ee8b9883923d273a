"""The figures in the documentation are those that are computed."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "docs" / "figures.json").read_text())


@pytest.fixture(scope="module")
def figures(benchmark_script):
    return benchmark_script("figures_of_docs")


def words(page):
    return " ".join((ROOT / "docs" / page).read_text().split())


def test_the_cheap_figures_are_what_they_are_now(figures):
    assert figures.cheap() == KEPT["cheap"]


@pytest.mark.parametrize("page", KEPT["cheap"])
def test_the_pages_have_them(page):
    assert [text for text in KEPT["cheap"][page] if text not in words(page)] == []


@pytest.mark.parametrize(
    ("name", "page"), [("drift", "benchmarks.md"), ("losses", "benchmarks.md"), ("demo", "tiny-model.md")]
)
def test_the_pages_have_what_was_measured(name, page):
    assert [text for text in KEPT[name] if text not in words(page)] == []


def test_a_row_of_drift(figures):
    row = {"tokens": 4, "norm": 1.0, "psnr": [40.04, 35.2, 50.0], "largest": [0.1, 0.312], "isolated_max": 0.0}
    assert figures.drift_rows([row]) == ["| 4 | × 1 | 35.2 – 50.0 | 0.31 |"]
