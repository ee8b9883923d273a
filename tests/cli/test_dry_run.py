"""--dry-run tells what would be done, how large and how long, and leaves nothing."""

import pytest

from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained


@pytest.fixture
def here(tmp_path, monkeypatch, backend):
    untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3)).save(tmp_path / "tokens.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["detect", "tokens.safetensors", "@", "--noises", "1"], "would make 3 keypoints on 3 objects, with "),
        (["generate", "@", "--num", "2", "--model", "+"], "would make 6 sets of views of 3 pictures, with "),
        (
            ["discover", "@", "--model", "+", "--tokens", "2", "--candidates", "4", "--steps", "70", "--noises", "1"],
            "would make 2 keypoints from 3 objects in 70 steps, with ",
        ),
    ],
)
def test_nothing_is_written(words, told, here, command, chairs, model_folder, capsys):
    before = sorted(here.rglob("*"))
    words = [str(chairs) if word == "@" else str(model_folder) if word == "+" else word for word in words]
    assert command(*words, "--out", "new", "--dry-run") == 0
    said = capsys.readouterr().out
    assert told in said
    assert "on cpu, in new" in said
    assert "MiB, in about " in said
    assert "nothing is written" in said
    assert sorted(here.rglob("*")) == before


def test_a_dry_run_is_of_data_and_checks_as_the_command_does(here, command, capsys):
    assert command("discover", "--cache", "cache", "--out", "new", "--dry-run") == 2
    assert "--dry-run is for DATA" in capsys.readouterr().err
    (here / "new").mkdir()
    (here / "new" / "notes.txt").write_text("somebody's")
    assert command("generate", "none.png", "--out", "new", "--dry-run") == 2
