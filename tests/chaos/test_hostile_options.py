"""Every option of every command with hostile words: one sentence and nothing left, or the command begins its work."""

import shutil
import sys
from types import ModuleType
from typing import get_args, get_type_hints

import pytest
from typer.main import get_command

from helpers.hostile import answer
from keyorbit.cli.main import new_app
from keyorbit.cli.options import ranges_of
from keyorbit.storage.outputs import begin_output
from keyorbit.training.choices import RUN

WORDS = (
    "", "0", "-1", "nan", "inf", "-inf", "1e400", "0.5", str(2**31), str(2**64), "9" * 5000, "a", "x" * 300, "../x",
    "/", "\udcff", "0-0", "0/0", "1,", "[", "--", "=1+1", "-0.0", "\n", "@/file.txt", "@/folder", "@/loop",
)  # fmt: skip
# What commands import where their work begins.
WORK = (
    "keyorbit.cli.work.loading",
    "keyorbit.cli.work.several",
    "keyorbit.cli.checkup",
    "keyorbit.diffusion.backends.convert",
    "keyorbit.app.interface",
    "keyorbit.synthetic.dataset",
    "keyorbit.objects.shards.packing",
)


class Begun(BaseException):
    """The door was passed."""


class Work(ModuleType):
    """In place of a module that does work."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise Begun


@pytest.fixture
def place(tmp_path, monkeypatch, chairs):
    for name in WORK:
        monkeypatch.setitem(sys.modules, name, Work(name))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sorted(chairs.iterdir())[0], tmp_path / "data" / "chair")
    (tmp_path / "folder").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tokens.safetensors").write_text("not read here")
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "mesh.obj").write_text("not read here")
    (tmp_path / "points.json").write_text('{"marks": [{"name": "seat", "view": 0, "xy": [0.5, 0.5]}]}')
    (tmp_path / "loop").symlink_to("loop")
    begin_output(tmp_path / "old", RUN)
    (tmp_path / "old" / "train.safetensors").write_text("an earlier run")
    return tmp_path


CALLS = {
    "demo": ["--quick"],
    "doctor": ["--no-test"],
    "discover": ["data", "--out", "new"],
    "cache": ["data", "--out", "new"],
    "train": ["data", "--out", "old", "--overwrite"],
    "detect": ["run", "data", "--out", "new"],
    "generate": ["data", "--out", "new"],
    "evaluate": ["run", "data"],
    "protocol stablekeypoints": ["--dataset", "taichi", "--data", "data", "--out", "new", "--model", "tiny"],
    "name": ["run", "--kind", "chair"],
    "mark": ["data", "--points", "points.json", "--out", "new"],
    "report": ["run"],
    "app": ["run"],
    "annotate": ["data", "--run", "run"],
    "inspect": [],
    "convert": ["tiny", "new"],
    "dataset make": ["new"],
    "dataset render": ["mesh.obj", "--out", "new"],
    "dataset pack": ["data", "--out", "new"],
    "dataset list": ["data"],
}


def commands(command, words=()):
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(words), command
    for name, inner in below.items():
        yield from commands(inner, (*words, name))


COMMANDS = dict(commands(get_command(new_app())))
OPTIONS = [
    (name, max(option.opts, key=len))
    for name, command in COMMANDS.items()
    for option in command.params
    if option.param_type_name == "option" and not getattr(option, "is_flag", False)
]


def there(folder):
    return {path: path.is_symlink() or path.is_dir() or path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_an_option_is_told_at_the_door_or_the_work_begins(name, option, place, tally, chaos):
    before, few = there(place), OPTIONS.index((name, option)) % 9
    for word in WORDS if chaos else WORDS[few::9]:
        word = word.replace("@", str(place))
        said = answer(*name.split(), *CALLS[name], f"{option}={word}")
        begun = "Begun" in said.escaped.splitlines()[-1:][0] if said.escaped else False
        assert begun or said.sentence, (word, said)
        tally["options", name, "accepted" if begun else "one sentence"] += 1
        assert there(place) == before, word


def test_every_command_is_called():
    assert set(CALLS) == set(COMMANDS)


def test_every_number_that_can_be_asked_for_has_a_range():
    """So that a new option is within bounds, too."""
    for name, command in COMMANDS.items():
        checked = ranges_of(command.callback)
        for option, hint in get_type_hints(command.callback).items():
            if {int, float} & {hint, *get_args(hint)}:
                assert option in checked, (name, option)


def test_an_empty_word_is_told(place):
    assert "--out is empty" in answer("discover", "data", "--out", "").said
    assert "an argument is empty" in answer("discover", "", "--out", "new").said


def test_two_results_need_two_files(place):
    said = answer("inspect", "--json", "a", "--markdown", "./a")
    assert said.sentence
    assert "both name" in said.said
