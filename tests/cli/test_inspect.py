"""``keyorbit inspect`` as a user calls it."""

import json
import shutil
import sys
from functools import partial

import pytest

from keyorbit.cli import main
from keyorbit.diffusion.inspection.drift import measure_drift
from keyorbit.diffusion.inspection.variants import Cost


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["keyorbit", "inspect", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code or 0


def test_files_and_plain_output_need_no_weights(model_folder, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(model_folder, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    file, text = tmp_path / "new" / "f.json", tmp_path / "f.md"
    assert call(monkeypatch, "--model", folder, "--tokens", 4, "--json", file, "--markdown", text) == 0
    data = json.loads(file.read_text())
    assert (data["model"], data["tokens"], data["measured"], data["drift"]) == (str(folder), 4, [], [])
    assert data["text_embeddings"] == {"old": [1, 77, 16], "new": [1, 81, 16]}
    assert capsys.readouterr().out == text.read_text()


def test_measure_and_drift_go_into_the_report(model_folder, tmp_path, monkeypatch):
    costs = [Cost("bare", (1.0,), 10), Cost("isolated", (1.5,), 11)]
    monkeypatch.setattr("keyorbit.diffusion.inspection.cost.measure", lambda subject, progress: costs)
    monkeypatch.setattr(
        "keyorbit.diffusion.inspection.drift.measure_drift", partial(measure_drift, counts=(1,), norms=(1.0,), steps=1)
    )
    file = tmp_path / "f.json"
    assert call(monkeypatch, "--model", model_folder, "--measure", "--drift", "--json", file) == 0
    data = json.loads(file.read_text())
    assert [entry["slower_than_bare"] for entry in data["measured"]] == [1.0, 1.5]
    assert [entry["isolated_equal"] for entry in data["drift"]] == [True]
    claims = {claim["claim"]: claim for claim in data["claims"]}
    assert claims["a slowdown of 5–10 %"]["verdict"] == "refuted"
    assert "dB" in claims["the tokens do not interfere with the views"]["number"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--model", "zero124"), "zero124"),
        (("--tokens", "0"), "tokens"),
        (("--model", "zero123plus-v1.2", "--drift"), "trained weights"),
        (("--drift", "--picture", "nowhere.png"), "nowhere.png"),
        (("--measure", "--dtype", "float7"), "float7"),
        (("--markdown", "/proc/nowhere/f.md"), "/proc/nowhere"),
    ],
)
def test_bad_use_gets_one_sentence(words, named, monkeypatch, capsys):
    assert call(monkeypatch, *words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert named in said[0]
