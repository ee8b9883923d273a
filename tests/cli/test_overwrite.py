"""Every command that writes: what others put into its folder stays, its own output goes when it is told to."""

import json
import os
import shutil

import pytest
import trimesh
from PIL import Image

from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.storage.outputs import MARKER


def contents(folder):
    """Every file below a folder, as bytes by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


pytestmark = pytest.mark.usefixtures("few_denoising_steps")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two small objects."""
    from keyorbit.synthetic.dataset import DatasetSpec, make_dataset

    folder = tmp_path_factory.mktemp("data")
    make_dataset(folder, DatasetSpec("chair", 2, seed=1, size=16))
    return folder


@pytest.fixture(scope="module")
def tokens(backend, tmp_path_factory):
    """A file of tokens that nothing has trained."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    untrained(backend, DiscoverConfig(num_tokens=2, num_candidates=2)).save(path)
    return path


def picture(colour):
    """A white square on a ground of that colour."""
    made = Image.new("RGB", (16, 16), colour)
    made.paste((255, 255, 255), (4, 4, 12, 12))
    return made


@pytest.fixture
def words_of(model_folder, data, tokens, tmp_path, few_planted):
    """A command's words, that write into ``out``."""
    trimesh.creation.box((1, 0.5, 0.7)).export(tmp_path / "box.glb")
    picture((30, 100, 100)).save(tmp_path / "0.png")
    small = ["--tokens", 2, "--candidates", 3, "--steps", 2, "--batch", 1, "--noises", 1, "--config", few_planted]
    few = ["--steps", 1, "--batch", 1, "--tokens", 2, "--sample-every", 0, "--cpu"]

    def words(name, out):
        return {
            "discover": ["discover", data, "--model", model_folder, "--out", out, *small],
            "train": ["train", data, "--model", model_folder, "--out", out, *few],
            "full": ["train", data, "--model", model_folder, "--out", out, *few, "--train", "full"],
            "detect": ["detect", tokens, data / "chair_1_00000", "--out", out, "--format", "json", "--noises", 1],
            "generate": ["generate", tmp_path / "0.png", "--model", model_folder, "--out", out.parent, "--steps", 1],
            "cache": ["cache", data, "--model", model_folder, "--out", out, "--noises", 1],
            "render": ["dataset", "render", tmp_path / "box.glb", "--out", out, "--size", 16],
            "make": ["dataset", "make", out.parent, "--objects", 1, "--size", 16],
        }[name]

    return words


def place_of(name, tmp_path):
    """Where that command writes; a made object has its own name."""
    return tmp_path / {"make": "chair_0_00000", "generate": "0"}.get(name, "out")


@pytest.mark.parametrize("name", ["discover", "train", "detect", "cache", "render", "make", "generate"])
@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_somebody_elses_files_are_refused_before_any_work(name, options, words_of, tmp_path, command, capsys):
    place = place_of(name, tmp_path)
    for mine in ("thesis/a.tex", "model/own.txt", "tokens.safetensors", "meta.json", "index.json.partial"):
        (place / mine).parent.mkdir(parents=True, exist_ok=True)
        (place / mine).write_text("mine")
    before = contents(tmp_path)
    if name == "cache":
        options = []
    assert command(*words_of(name, place), *options) == 2
    said = capsys.readouterr().err.strip()
    assert "did not mark as its own" in said
    assert "\n" not in said
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["discover", "train", "full", "detect", "render", "make", "generate"])
def test_an_earlier_output_is_kept_or_replaced_whole(name, words_of, tmp_path, command, capsys):
    place = place_of(name, tmp_path)
    assert command(*words_of(name, place)) == 0
    before = contents(place)
    assert command(*words_of(name, place)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(place) == before
    assert command(*words_of(name, place), "--overwrite") == 0
    assert contents(place).keys() == before.keys()
    for mine in ("notes.txt", "model/notes.txt"):
        (place / mine).parent.mkdir(exist_ok=True)
        (place / mine).write_text("mine")
    before = contents(place)
    assert command(*words_of(name, place), "--overwrite") == 2
    assert "notes.txt" in capsys.readouterr().err
    assert contents(place) == before


def test_a_runs_checkpoint_is_lost_to_no_other_run(words_of, tmp_path, command, capsys):
    out, words = tmp_path / "out", words_of("discover", tmp_path / "out")
    assert command(*words) == 0
    for name in ("tokens.safetensors", "run.json"):  # as a run that was killed leaves it
        (out / name).unlink()
    before = contents(out)
    assert command(*words) == 2
    assert "--resume" in capsys.readouterr().err
    assert contents(out) == before
    assert command(*words, "--resume", "--overwrite") == 2
    assert "choose one" in capsys.readouterr().err
    (out / "notes.txt").write_text("mine")
    assert command(*words, "--resume") == 0
    assert (out / "tokens.safetensors").is_file()
    assert (out / "notes.txt").read_text() == "mine"


def test_a_run_that_fails_at_once_leaves_the_one_before_it(words_of, tmp_path, command, capsys):
    out, words = tmp_path / "out", words_of("discover", tmp_path / "out")
    assert command(*words) == 0
    before = contents(out)
    assert command(*words, "--overwrite", "--layers", "none.*") == 2
    assert contents(out) == before


def test_a_run_of_an_earlier_version_goes_on_and_is_not_replaced(words_of, tmp_path, command, capsys):
    out, words = tmp_path / "out", words_of("discover", tmp_path / "out")
    assert command(*words) == 0
    (out / MARKER).unlink()
    before = contents(out)
    assert command(*words, "--overwrite") == 2
    assert contents(out) == before
    assert command(*words, "--resume") == 0
    assert command(*words, "--overwrite") == 0


def test_a_trainings_own_names_are_no_wider_than_what_it_writes(words_of, tmp_path, command, capsys):
    out, words = tmp_path / "out", words_of("train", tmp_path / "out")
    assert command(*words) == 0
    for mine in ("samples_holiday/beach.png", "samples_of_my_own.png", "train/train_best.safetensors"):
        (out / mine).parent.mkdir(exist_ok=True)
        (out / mine).write_text("mine")
        assert command(*words, "--overwrite") == 2
        assert mine in capsys.readouterr().err
        assert (out / mine).read_text() == "mine"
        (out / mine).unlink()


def test_what_a_finished_training_writes_is_checked_before_it_goes_on(words_of, tmp_path, command, capsys):
    out, words = tmp_path / "out", words_of("full", tmp_path / "out")
    assert command(*words) == 0
    (out / "model" / "notes.txt").write_text("mine")
    before = contents(out)
    assert command(*words, "--resume") == 2
    assert "notes.txt" in capsys.readouterr().err
    assert contents(out) == before


def test_pictures_of_almost_the_same_name_have_results_of_their_own(data, tokens, tmp_path, command, capsys):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    names = ["a.png", "a.jpg", "a_2.png", "what?.png"]
    for i, name in enumerate(names):
        picture((30 * i, 100, 100)).save(pictures / name)
    picture((0, 0, 0)).save(os.fsencode(pictures) + b"/\xff.png")
    (pictures / "folder.png").mkdir()
    out = tmp_path / "out"
    words = ["detect", tokens, pictures, "--out", out, "--noises", 1, "--format", "json,csv"]
    assert command(*words) == 0
    said = capsys.readouterr().out
    folders = [path for path in out.iterdir() if path.is_dir()]
    found = {path.name: json.loads((path / "keypoints.json").read_text())["object"] for path in folders}
    assert found == {"a.jpg": "a.jpg", "a.png": "a.png", "a_2": "a_2", "what_": "what?", "_": "?"}
    assert "what?" in said
    assert command(*words[:2], pictures / "a.png", *words[3:]) == 2
    assert command(*words[:2], pictures / "a.png", *words[3:], "--overwrite") == 0
    assert not any(path.is_dir() for path in out.iterdir())


@pytest.mark.parametrize("name", ["page", "scores", "inspect", "markdown"])
def test_a_file_of_another_kind_is_not_overwritten(name, words_of, data, model_folder, tmp_path, command, capsys):
    mine, run = tmp_path / "mine", tmp_path / "run"
    if name in ("page", "scores"):
        assert command(*words_of("discover", run)) == 0
    words = {
        "page": ["report", run, "--objects", 0, "--out", mine],
        "scores": ["evaluate", run, data, "--no-baseline", "--json", mine],
        "inspect": ["inspect", "--model", model_folder, "--json", mine],
        "markdown": ["inspect", "--model", model_folder, "--markdown", mine],
    }[name]
    mine.write_text('{"this": "is mine"}')
    assert command(*words) == 2
    assert "mine is not what this command writes, so it was not touched" in capsys.readouterr().err
    assert mine.read_text() == '{"this": "is mine"}'
    mine.unlink()
    assert command(*words) == command(*words) == 0  # its own is replaced
    assert mine.stat().st_size > 100


def test_a_cache_goes_on_where_its_marker_or_its_index_is(words_of, tmp_path, command):
    out, words = tmp_path / "out", words_of("cache", tmp_path / "out")
    assert command(*words) == 0
    whole = contents(out)
    (out / MARKER).unlink()  # one of an earlier version
    next(out.glob("shard_*")).unlink()
    assert command(*words) == 0
    assert contents(out) == whole
    (out / "index.json").unlink()  # killed before there was one
    shutil.rmtree(tmp_path / "other", ignore_errors=True)
    assert command(*words) == 0
    assert contents(out) == whole
