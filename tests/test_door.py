"""The front door: version, help and complaints come without torch, and public names are there when they are used."""

import ast
import inspect
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import keyorbit as ko
from keyorbit.cli import app
from keyorbit.diffusion.choices import ARCHITECTURE_NAMES, RIGS, VERSIONS
from keyorbit.diffusion.inspection.architectures import ARCHITECTURES
from keyorbit.evaluation.choices import PLAIN_DATASETS, PROTOCOL_DATASETS
from keyorbit.evaluation.protocol import PROTOCOLS
from keyorbit.evaluation.readers import READERS
from keyorbit.geometry.rigs import known_rigs

# What takes its time to import, and what these bring along.
HEAVY = {
    "torch", "diffusers", "transformers", "accelerate", "peft", "safetensors", "huggingface_hub", "numpy", "scipy",
    "PIL", "einops", "jaxtyping", "trimesh", "matplotlib", "jinja2", "gradio", "ray", "pyarrow",
}  # fmt: skip
# One process for all: it calls the command line with each list of words, and notes what came of it.
CALLS = """
import contextlib, io, json, sys
heavy, calls = json.loads(sys.stdin.read())
import keyorbit
from keyorbit.cli import main
for words in calls:
    sys.argv = ["keyorbit", *words]
    said, status = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    loaded = sorted(set(heavy) & set(sys.modules))
    print(json.dumps([status, " ".join(said.getvalue().split()), loaded]))
"""


def run(script, given=None):
    source = str(Path(ko.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {source!r})\n{script}"
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(given), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def all_commands(command, words=()):
    """The words of a group and of every command below it."""
    yield list(words)
    for name, below in getattr(command, "commands", {}).items():
        yield from all_commands(below, (*words, name))


def test_the_version_and_all_help_come_without_any_heavy_library():
    calls = [["--version"], *([*words, "--help"] for words in all_commands(get_command(app)))]
    assert len(calls) > 14
    found = run(CALLS, [sorted(HEAVY), calls])
    assert [(call, status, loaded) for call, (status, _, loaded) in zip(calls, found, strict=True)] == [
        (call, 0, []) for call in calls
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a file that looks like tokens, one like an object, and files that are in the way."""
    folder = tmp_path_factory.mktemp("door")
    for name in ("run", "data/chair", "busy", "empty", "photographs"):
        (folder / name).mkdir(parents=True)
    (folder / "run" / "tokens.safetensors").write_text("not read here")
    (folder / "data" / "chair" / "meta.json").write_text("{}")
    (folder / "busy" / "notes.txt").write_text("somebody's")
    (folder / "bad.toml").write_text("steps = = 3")
    (folder / "file.txt").write_text("text")
    return folder


DISCOVER = ["discover", "@/data", "--out", "@/new"]
CACHE = ["cache", "@/data", "--out", "@/new"]
TRAIN = ["train", "@/data", "--out", "@/new"]
DETECT = ["detect", "@/run", "@/data", "--out", "@/new"]
GENERATE = ["generate", "@/data", "--out", "@/new"]
EVALUATE = ["evaluate", "@/run", "@/data"]
NAME = ["name", "@/run", "--objects", "@/data"]
MARK = ["mark", "@/data", "--out", "@/new"]
PROTOCOL = ["protocol", "stablekeypoints", "--data", "@/data", "--out", "@/new", "--model", "tiny", "--dataset"]
ANNOTATE = ["annotate", "@/data", "--run", "@/run"]
MAKE = ["dataset", "make", "@/new"]
# Wrong words, and what the sentence about them holds; @ is the folder above.
WRONG = [
    ([*DISCOVER, "--maps", "x"], "--maps cannot be 'x'; it must be 'attention' or 'logits' or 'stablekeypoints'"),
    ([*DISCOVER, "--method", "x"], "--method cannot be 'x'; it must be 'consistency' or 'constellation'"),
    ([*DISCOVER, "--preset", "x"], "--preset cannot be 'x'; it must be 'keyorbit' or 'stablekeypoints'"),
    ([*DISCOVER, "--preset", "stablekeypoints", "--config", "a.toml"], "give either --preset or --config"),
    ([*DISCOVER, "--strategy", "x"], "--strategy cannot be 'x'; it must be 'consistent' or 'entropy' or 'gaussian'"),
    ([*DISCOVER, "--rate", "-1"], "--rate cannot be -1.0"),
    ([*DISCOVER, "--subjects", "0"], "--subjects cannot be 0"),
    ([*DISCOVER, "--mode", "x"], "--mode cannot be 'x'; it must be 'alone' or 'isolated' or 'joint'"),
    ([*DISCOVER, "--tokens", "0"], "--tokens cannot be 0; it must be a whole number >= 1"),
    ([*DISCOVER, "--steps", "-1"], "--steps cannot be -1; it must be a whole number >= 0"),
    ([*NAME], "give --words FILE, or --kind with one of aeroplane, animal, car, chair"),
    ([*NAME, "--kind", "boat"], "--kind"),
    ([*NAME, "--words", "@/none.txt"], "there is no file"),
    ([*NAME, "--kind", "chair", "--near", "2"], "--near cannot be 2.0"),
    ([*MARK], "give the marks: either --points FILE or --coco FILE"),
    ([*MARK, "--points", "@/none.json"], "there is no file"),
    ([*MARK, "--points", "@/file.txt"], "file.txt cannot be read as JSON"),
    ([*MARK, "--coco", "@/none.json"], "there is no file"),
    ([*MARK, "--points", "@/a", "--coco", "@/b"], "either --points FILE or --coco FILE"),
    ([*MARK, "--points", "@/a", "--keep"], "--keep keeps the keypoints of a run: give it with --run"),
    ([*MARK, "--points", "@/a", "--run", "@/none"], "no tokens at"),
    ([*MARK, "--points", "@/a", "--steps", "-1"], "--steps cannot be -1; it must be a whole number >= 0"),
    (
        ["mark", "@/data", "--out", "@/run", "--run", "@/run", "--points", "@/a"],
        "holds files that keyorbit did not mark",
    ),
    (["mark", "@/data", "--out", "@/busy", "--points", "@/a"], "holds files that keyorbit did not mark as its own"),
    ([*EVALUATE, "--symmetry", "0"], "--symmetry cannot be 0; it must be a whole number >= 1 and <= 360 or 'round'"),
    ([*EVALUATE, "--symmetry", "square"], "--symmetry cannot be 'square'; it must be a whole number >= 1"),
    ([*TRAIN, "--batch", "0"], "--batch cannot be 0; it must be a whole number >= 1"),
    ([*TRAIN, "--save-every", "0"], "--save-every cannot be 0; it must be a whole number >= 1"),
    ([*TRAIN, "--keypoint", "nan"], "--keypoint cannot be nan; it must be a number >= 0"),
    ([*MAKE, "--workers", "0"], "--workers cannot be 0; it must be a whole number >= 1"),
    (["app", "--port", "99999999"], "--port cannot be 99999999; it must be a whole number >= 0 and <= 65535"),
    ([*DISCOVER, "--timestep", "1000"], "--timestep cannot be 1000; it must be a whole number >= 0 and <= 999"),
    ([*DISCOVER, "--warps", "-1"], "--warps cannot be -1; it must be a whole number >= 0"),
    ([*DISCOVER, "--cache", "@/data"], "give either DATA or --cache"),
    (["discover", "--cache", "@/data", "--out", "@/new"], "is no query cache: it has no index.json"),
    (["discover", "--cache", "@/data", "--out", "@/new", "--noises", "2"], "--noises cannot be chosen any more"),
    ([*DISCOVER, "--config", "@/none.toml"], "there is no file"),
    ([*DISCOVER, "--config", "@/bad.toml"], "bad.toml cannot be read as TOML"),
    ([*DISCOVER, "--resume", "--overwrite"], "choose one of them"),
    ([*DISCOVER, "--model", "@/none"], "no model folder at"),
    ([*DISCOVER, "--unet", "@/none.safetensors"], "there is no UNet state dict at"),
    ([*DISCOVER, "--dtype", "float7"], "dtype 'float7' is not one of float32, bfloat16, float16"),
    (["discover", "@/data", "--out", "@/busy"], "holds files that keyorbit did not mark as its own"),
    (["discover", "@/data", "--out", "@/file.txt"], "is a file; give a folder for the discovery run"),
    (["discover", "@/none", "--out", "@/new"], "there is no file or folder at"),
    (["discover", "@/empty", "--out", "@/new"], "holds no object folders (with meta.json) and no pictures"),
    ([*CACHE, "--store", "int8"], "queries are stored as float32, bfloat16, float16, not 'int8'"),
    (["cache", "@/data", "--out", "@/busy"], "holds files that keyorbit did not mark as its own"),
    ([*TRAIN, "--mode", "x"], "--mode cannot be 'x'; it must be 'isolated' or 'joint'"),
    ([*TRAIN, "--train", "x"], "--train cannot be 'x'; it must be 'full' or 'lora' or 'tokens'"),
    ([*TRAIN, "--precision", "x"], "--precision cannot be 'x'; it must be 'bf16' or 'fp16' or 'no'"),
    ([*TRAIN, "--tracker", "x"], "--tracker cannot be 'x'; it must be 'none' or 'tensorboard'"),
    ([*TRAIN, "--tokens", "@/none"], "no tokens at"),
    ([*DETECT, "--peak", "x"], "--peak cannot be 'x'; it must be 'argmax' or 'soft' or 'window'"),
    ([*DETECT, "--engine", "x"], "--engine cannot be 'x'; it must be 'ray'"),
    ([*DETECT, "--gpus", "2"], "--gpus cannot be 2.0; it must be a number >= 0 and <= 1"),
    ([*DETECT, "--workers", "2"], "--workers and --gpus are for --engine ray: give it too, or leave them out"),
    ([*DETECT, "--format", "json,x"], "the format 'x' is unknown; give some of json, coco"),
    ([*DETECT, "--skeleton", "0,1"], "the skeleton is 'auto' or edges such as 0-3,3-5, not '0,1'"),
    ([*DETECT, "--views", "@/data"], "--views and --cameras belong together"),
    (["detect", "@/run", "--out", "@/new"], "give pictures or objects"),
    (["detect", "@/none", "@/data", "--out", "@/new"], "no tokens at"),
    (["detect", "@/run", "@/none.png", "--out", "@/new"], "there is no file or folder at"),
    (["detect", "@/run", "--views", "@/none", "--cameras", "@/none", "--out", "@/new"], "no folder of photographs"),
    (["detect", "@/run", "--views", "@/photographs", "--cameras", "@/none.json", "--out", "@/new"], "there is no file"),
    (
        ["detect", "@/run", "--views", "@/photographs", "--cameras", "@/empty", "--out", "@/new"],
        "holds no COLMAP model",
    ),
    (["detect", "@/run", "--views", "@/photographs", "--cameras", "@/file.txt", "--out", "@/new"], "be read as JSON"),
    ([*GENERATE, "--num", "0"], "--num cannot be 0; it must be a whole number >= 1"),
    ([*GENERATE, "--steps", "1001"], "--steps cannot be 1001; it must be a whole number >= 1 and <= 1000"),
    ([*GENERATE, "--guidance", "nan"], "--guidance cannot be nan; it must be a number >= 0 and <= 1000"),
    (["generate", "@/none.png", "--out", "@/new"], "there is no file or folder at"),
    (["convert", "@/none.bin", "@/new"], "there is no file of weights at"),
    ([*EVALUATE, "--limit", "0"], "--limit cannot be 0; it must be a whole number >= 1"),
    ([*EVALUATE, "--batch", "0"], "--batch cannot be 0; it must be a whole number >= 1"),
    ([*DETECT, "--batch", "0"], "--batch cannot be 0; it must be a whole number >= 1"),
    ([*CACHE, "--batch", "0"], "--batch cannot be 0; it must be a whole number >= 1"),
    ([*EVALUATE, "--dataset", "x"], "no data set 'x'; known are keyorbit, celeba-aligned"),
    ([*EVALUATE, "--json", "@/file.txt"], "is not what this command writes"),
    ([*EVALUATE, "--fit", "@/none"], "there is no file or folder at"),
    (["report", "@/none"], "is not the folder of a run"),
    (["report", "@/run", "--scores", "@/none.json"], "there is no file"),
    (["report", "@/run", "--objects", "-1"], "--objects cannot be -1; it must be a whole number >= 0"),
    ([*PROTOCOL, "x"], "--dataset is celeba-aligned or celeba-wild"),
    ([*PROTOCOL, "taichi", "--batch", "0"], "--batch cannot be 0; it must be a whole number >= 1"),
    (["app", "@/none"], "no tokens at"),
    ([*ANNOTATE[:2], "--run", "@/none"], "no tokens at"),
    (["annotate", "@/none", "--run", "@/run"], "there is no file or folder at"),
    ([*ANNOTATE, "--all"], "--all is for --export"),
    ([*ANNOTATE, "--import", "@/file.txt", "--export", "@/new"], "--import and --export are two steps"),
    ([*ANNOTATE, "--import", "@/none.xml"], "there is no file"),
    ([*ANNOTATE, "--import", "@/file.txt"], "cannot be read as JSON"),
    ([*ANNOTATE, "--out", "@/file.txt"], "is not what this command writes"),
    ([*ANNOTATE, "--export", "@/run"], "holds files that keyorbit did not mark as its own"),
    (["inspect", "--model", "x"], "no model at x; give one of tiny, zero123plus-v1.2"),
    (["inspect", "--picture", "@/none.png", "--drift"], "there is no file or folder at"),
    (["detect", "none://bucket/x.tar", "--out", "@/new"], "cannot be reached: ValueError: Protocol not known: none"),
    (["dataset", "list", "@/none"], "there is no file or folder at"),
    (["--quiet", "--verbose", "dataset", "list"], "--quiet and --verbose exclude each other"),
    (["discover", "@/data"], "Missing option"),
    (["detect", "@/run"], "give pictures or objects"),
    (["detect"], "give pictures or objects"),
    (["detect", "@/none.png"], "there is no file or folder at"),
    (["detect", "@/no*.png"], "nothing matches"),
    ([*DISCOVER, "--steps", "many"], "Invalid value"),
    (["paint"], "No such command"),
    # The categories are defined beside the functions that make them, with numpy.
    ([*MAKE, "--category", "x"], "no category 'x'; known are: chair, table"),
    ([*MAKE, "--shard", "4/4"], "there is no shard 4 of 4"),
    ([*MAKE, "--objects", "0"], "--objects cannot be 0; it must be a whole number >= 1 and <= 1000000"),
    (["dataset", "render", "@/none.obj", "--out", "@/new"], "there is no mesh file at"),
    (["dataset", "pack", "@/none", "--out", "@/new"], "there is no file or folder at"),
    (["dataset", "pack", "@/none.tar", "--out", "@/new"], "there is no file or folder at"),
]


def test_a_wrong_argument_is_reported_before_anything_heavy_is_loaded(place):
    calls = [[word.replace("@", str(place)) for word in words] for words, _ in WRONG]
    for (words, sentence), (status, said, loaded) in zip(WRONG, run(CALLS, [sorted(HEAVY), calls]), strict=True):
        assert (words, status) == (words, 2), said
        assert sentence in said, words
        light = {"numpy", "jaxtyping"} if words[0] == "dataset" else set()
        assert set(loaded) <= light, words
    assert not (place / "new").exists()


def test_the_categories_are_listed_without_torch():
    ((status, said, loaded),) = run(CALLS, [sorted(HEAVY), [["dataset", "list"]]])
    assert (status, set(loaded) <= {"numpy", "jaxtyping"}) == (0, True)
    assert "aeroplane" in said


@pytest.mark.parametrize("path", sorted(Path(ko.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_what_draws_and_writes_is_imported_where_it_is_used(path):
    """By text: diffusers brings some of these along when torch is there anyway."""
    early = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            early |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            early.add((node.module or "").split(".")[0])
    assert early & {"trimesh", "matplotlib", "jinja2", "peft", "gradio", "rerun"} == set()


def test_importing_keyorbit_loads_no_module_of_its_own_until_it_is_used():
    script = """
import json, sys
import keyorbit as ko
mine = lambda: sorted(name for name in sys.modules if name.startswith("keyorbit"))
print(json.dumps([mine(), "Tokens" in dir(ko)]))
print(json.dumps([ko.InputError.__name__, mine()]))
"""
    assert run(script) == [[["keyorbit"], True], ["InputError", ["keyorbit", "keyorbit.errors"]]]


def stub():
    """The public names of __init__.pyi, as editors and mypy see them: name → where it comes from."""
    tree = ast.parse(Path(ko.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes, listed = {}, []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            homes |= {alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.Assign):
            listed = ast.literal_eval(node.value)
    return homes, listed


def test_the_stub_and_the_package_name_the_same_things():
    homes, listed = stub()
    assert ko.__all__ == sorted(listed) == sorted(homes)
    for name, module in homes.items():
        value = getattr(ko, name)
        assert value is getattr(__import__(module, fromlist=[name]), name), name
        assert inspect.getdoc(value), name
    assert set(ko.__all__) <= set(dir(ko))
    with pytest.raises(AttributeError, match="module 'keyorbit' has no attribute 'nothing'"):
        _ = ko.nothing


def test_public_names_are_what_they_were():
    assert inspect.isfunction(ko.discover)
    assert inspect.isfunction(ko.evaluate)
    assert inspect.isfunction(ko.train)
    assert inspect.ismodule(ko.losses)
    assert inspect.ismodule(ko.metrics)
    names = {}
    exec("from keyorbit import *", names)
    assert set(ko.__all__) <= set(names)
    config = ko.DiscoverConfig(num_tokens=3)
    assert pickle.loads(pickle.dumps(config)) == config
    assert pickle.loads(pickle.dumps(ko.Tokens)) is ko.Tokens


def test_names_that_the_command_line_offers_are_those_that_there_are():
    assert (*VERSIONS, *known_rigs()) == RIGS
    assert tuple(ARCHITECTURES) == ARCHITECTURE_NAMES
    assert tuple(READERS) == PLAIN_DATASETS
    assert tuple(PROTOCOLS) == PROTOCOL_DATASETS
