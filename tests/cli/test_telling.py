"""`--json` of every command: one option, one form, and nothing else on stdout."""

import json
from typing import get_args, get_type_hints

import pytest
from typer.main import get_command

from keyorbit.cli.main import new_app
from keyorbit.cli.telling import FORMAT, tell_json, told_apart
from keyorbit.errors import InputError

# It serves until it is ended, and has nothing to tell then.
WITHOUT = {"app"}


def commands(command, words=()):
    below = getattr(command, "commands", {})
    if not below:
        yield " ".join(words), command
    for name, inner in below.items():
        yield from commands(inner, (*words, name))


def test_every_command_that_ends_by_itself_tells_json_in_one_way():
    found = {}
    for name, command in commands(get_command(new_app())):
        options = [option for option in command.params if "--json" in option.opts]
        found[name] = [(o.opts, o.name, o.metavar, o.help, o.default) for o in options]
    assert {name for name, options in found.items() if not options} == WITHOUT
    (one,) = {tuple(map(str, options)) for name, options in found.items() if name not in WITHOUT}
    assert "'--json'" in one[0]


# Options whose name means one thing here and another there: a number in one command, a file in another. Workers may be
# two numbers where Ray starts and ends them.
MIXED = {"--fit", "--objects", "--test", "--tokens", "--workers"}


def test_options_of_one_name_take_one_type():
    taken = {}
    for _, command in commands(get_command(new_app())):
        hints = get_type_hints(command.callback)
        for option in command.params:
            if option.param_type_name == "option" and option.name in hints:
                kinds = get_args(hints[option.name]) or (hints[option.name],)
                kinds = tuple(kind for kind in kinds if kind is not type(None))
                taken.setdefault(max(option.opts, key=len), set()).add(kinds)
    assert {name for name, kinds in taken.items() if len(kinds) > 1} == MIXED


def test_a_result_that_was_made_meanwhile_is_not_written_over(tmp_path):
    file = tmp_path / "results.jsonl"
    with told_apart(file, "detect"):
        file.write_text('{"number": 0}\n')
        with pytest.raises(InputError, match="was not touched: give another name"):
            tell_json(file, "detect", {})
    assert file.read_text() == '{"number": 0}\n'


@pytest.fixture
def place(tmp_path, monkeypatch, backend):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("keyorbit.cli.work.loading.load_backend_of", lambda *_: backend)
    return tmp_path


@pytest.fixture
def told(command, capsys):
    """Runs a command with `--json -`, and returns its status and what it told."""

    def run(*words):
        status = command(*words, "--json", "-")
        said = capsys.readouterr()
        return status, json.loads(said.out), said.err

    return run


def test_what_commands_tell_goes_alone_to_stdout(place, told, chairs, model_folder, few_planted, command):
    few = ["--tokens", 2, "--candidates", 2, "--steps", 2, "--noises", 1, "--config", few_planted]
    status, found, said = told("dataset", "list", chairs)
    assert (status, found["format"], found["command"]) == (0, FORMAT, "dataset list")
    row = found["objects"][0]
    assert (row["object"], row["views"], row["landmarks"]) == ("chair_1_00000", 6, 12)
    assert "chair_1_00000" in said  # the table
    status, found, _ = told("discover", chairs, "--out", "run", "--model", model_folder, *few)
    assert (status, found["keypoints"], found["run"]["objects"]) == (0, 2, 3)
    assert found["run"] == json.loads((place / "run" / "run.json").read_text())
    status, found, said = told("detect", "run", chairs, "--noises", 1, "--per-object", "none")
    assert (status, found["found"], found["left_out"], len(found["objects"])) == (0, 3, [], 3)
    assert found["results"] == "found/results.jsonl"
    assert "detect 3/3" in said
    status, found, _ = told("detect", "run", chairs / "chair_1_00000", "--out", "one", "--noises", 1, "--dry-run")
    assert found["dry_run"] is True
    status, found, _ = told("cache", chairs, "--out", "cache", "--model", model_folder, "--noises", 1)
    assert (status, found["objects"]) == (0, 3)
    status, found, _ = told("evaluate", "run", chairs, "--no-baseline")
    assert len(found["discovered"]["objects"]) == 3
    status, found, _ = told("dataset", "list")
    assert len(found["categories"]["chair"]) == 12
    # A file takes the place of one that the same command wrote, and of no other.
    assert command("dataset", "list", "--json", "told.json") == command("dataset", "list", "--json", "told.json") == 0
    assert json.loads((place / "told.json").read_text()) == found
    before = (place / "told.json").read_bytes()
    assert command("evaluate", "run", chairs, "--json", "told.json") == 2
    assert command("doctor", "--no-test", "--json", "told.json") == 2
    assert (place / "told.json").read_bytes() == before


def test_objects_that_are_left_out_are_told(place, told, chairs, tmp_path, model_folder):
    (place / "bad.png").write_text("no picture")
    status, found, said = told("generate", "bad.png", chairs, "--out", "views", "--model", model_folder, "--steps", 2)
    assert status == 2
    assert len(found["folders"]) == 3
    assert "bad.png" in found["left_out"][0]
    assert "1 of 4 objects are left out" in said
