"""A run folder with damaged losses, scores or facts makes a report, or is answered by one sentence that names it."""

import json

import pytest
import torch
from hypothesis import given

from helpers.damage import damaged, damages
from keyorbit.cli.report import page_figures
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.errors import InputError
from keyorbit.evaluation.evaluate import Evaluation, InputScores, ObjectScores
from keyorbit.output.loss_log import read_losses
from keyorbit.output.page.inputs import read_scores
from keyorbit.output.page.report import read_run, report_html, run_objects


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of three steps, with scores."""
    folder = tmp_path_factory.mktemp("run")
    Tokens(torch.zeros(3, 8), TokensInfo("tiny", "abc", ("a.attn2",), 300)).save(folder / "tokens.safetensors")
    (folder / "run.json").write_text(json.dumps({"objects": 60, "data": "gone", "seconds": 7.0, "config": {"a": [1]}}))
    steps = [{"step": i, "total": 1 / i, "seconds": 0.1} for i in (1, 2, 3)]
    (folder / "losses.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    one = Evaluation((ObjectScores("a", 3, 0.3, 0.1, 0.2),), 0.1, 0.9, 0.2, 0.2, 0.5, 1.0, InputScores(1.0, 0.1, 1, 0))
    (folder / "scores.json").write_text(json.dumps({"discovered": one.to_dict(), "untrained": one.to_dict()}))
    return folder


@pytest.mark.parametrize("name", ["losses.jsonl", "scores.json", "run.json"])
def test_a_damaged_run_is_shown_or_named(name, run, tally):
    assert read_run(run).losses[2]["step"] == 3  # as it was, it is good

    @given(damages())
    def tried(damage):
        said = None
        with damaged(run / name, damage):
            try:
                about = read_run(run)
                assert list(run_objects(about, (), 2)) == []
                scored = read_scores(run / "scores.json") if (run / "scores.json").is_file() else {}
                assert report_html(about, [], [], page_figures(scored), 1).startswith("<!doctype html>")
                if name == "losses.jsonl":
                    read_losses(run)
            except InputError as error:
                said = str(error)
        assert said is None or (str(run) in said and "\n" not in said)
        tally["readers", f"report's {name}", "one sentence" if said else "accepted"] += 1

    tried()
