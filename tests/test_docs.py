"""Every block of code in the README and the documentation runs, and every command in them can be parsed."""

import ast
import base64
import importlib.util
import io
import json
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from typer.main import get_command

import keyorbit as ko
from helpers.models import save_controlnet
from keyorbit.cli import app, main
from keyorbit.cli.examples import EXAMPLES
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.synthetic.dataset import DatasetSpec, make_dataset

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "index.md"
PAGES = sorted([README, *(ROOT / "docs").glob("*.md")])
GENERATED = {"cli.md", "shape-report.md"}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def pages_with(language):
    return [pytest.param(page, id=page.stem) for page in PAGES if page.name not in GENERATED and blocks(page, language)]


@pytest.fixture
def small_world(monkeypatch, tmp_path, model_folder):
    """A folder with the data that the pages name, and a model and step counts for which a block takes a second."""
    backend = load_backend(model_folder)  # its own: a block may change it
    make_dataset(tmp_path / "chairs", DatasetSpec("chair", 2, 1, backend.view_size))
    matplotlib.use("Agg")
    picture = Image.open(next((tmp_path / "chairs").glob("*/cond.png"))).convert("RGB")
    picture.save(tmp_path / "chair.png")
    monkeypatch.chdir(tmp_path)

    def loaded(*args, controlnet=None, **options):
        if controlnet is None:
            return backend
        save_controlnet(model_folder, tmp_path / "controlnet")
        other = load_backend(model_folder, controlnet=str(tmp_path / "controlnet"))
        other.generate = partial(other.generate, steps=2)
        return other

    monkeypatch.setattr(ko, "load_backend", loaded)
    monkeypatch.setattr(ko, "DiscoverConfig", partial(ko.DiscoverConfig, steps=3))
    monkeypatch.setattr(backend, "generate", partial(backend.generate, steps=2), raising=False)
    return {
        "ko": ko,
        "torch": torch,
        "Image": Image,
        "picture": picture,
        "backend": backend,
        "tokens": ko.Tokens.initialise(
            backend.text_statistics(torch.Generator().manual_seed(0)), 16, torch.Generator()
        ),
    }


def attention_inputs(backend, batch):
    generator = torch.Generator().manual_seed(0)
    height, width = backend.latent_size(3 * backend.view_size, 2 * backend.view_size)
    side = backend.latent_size(backend.view_size, backend.view_size)
    condition = torch.randn(batch, 4, *side, generator=generator)
    return {
        "latents": torch.randn(batch, 4, height, width, generator=generator),
        "timestep": torch.full((batch,), 300),
        "context": torch.randn(batch, 77, backend.unet.config.cross_attention_dim, generator=generator),
        "condition_latent": condition,
        "condition_noise": torch.randn(condition.shape, generator=generator),
    }


def test_the_readme_runs_on_what_ships():
    """With the model, the tokens and the object of the package: nothing is replaced by something small."""
    names = {}
    for block in blocks(README, "python"):
        exec(compile(block, str(README), "exec"), names)
    found = names["found"]
    assert found.keypoints_2d.xy.shape == (6, 16, 2)
    assert found.keypoints_3d.xyz.shape == (16, 3)
    assert found.keypoints_3d.score.min() > 0.5
    assert found.keypoints_3d.reprojection_error.median() < 0.02


def test_the_first_page_shows_the_lines_of_the_readme():
    """Which the test above runs."""
    assert blocks(INDEX, "python") == blocks(README, "python")


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page.values[0] not in (README, INDEX)])
def test_python_blocks_run(page, small_world):
    """In the page's order and in one namespace, as a reader would type them."""
    # Six pictures: a layout whose views are the batch's items needs whole objects.
    inputs = attention_inputs(small_world["backend"], 6)
    with ko.capture_attention(small_world["backend"].unet) as record:
        small_world["backend"].denoise(
            inputs["latents"],
            inputs["timestep"],
            small_world["tokens"].append_to(inputs["context"]),
            inputs["condition_latent"],
            inputs["condition_noise"],
        )
    names = small_world | inputs | {"record": record}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), names)


@pytest.fixture(scope="module")
def run_notebook():
    """The script behind ``make notebook``."""
    spec = importlib.util.spec_from_file_location("run_notebook", ROOT / "examples" / "run_notebook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_runs_top_to_bottom(small_world, run_notebook):
    """With the small model; the page in examples/ shows what the shipped one gave."""
    text = (ROOT / "examples" / "quickstart.ipynb").read_text()
    small = f", objects=3, size={small_world['backend'].view_size}"
    for many in (", objects=30", ", objects=5"):
        assert many in text
        text = text.replace(many, small)
    assert "steps=250" in text
    notebook = json.loads(text.replace("steps=250", "steps=3"))
    names = run_notebook.run(notebook)
    assert names["result"].landmark_3d > 0
    kept = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in kept) == 6
    assert len(json.dumps(kept)) < 1_000_000


def test_a_notebook_keeps_what_its_cells_give(run_notebook):
    """As Jupyter shows it, but for what goes to stderr; and the same bytes each time."""
    sources = ["a = 1\nprint('text')\na + 1", "a;", "plt.plot([1, 2]);", "Figure(figsize=(30, 1))"]
    sources[0] = f"import sys\nprint('hidden', file=sys.stderr)\n{sources[0]}"
    notebooks = []
    for _ in range(2):
        cells = [{"cell_type": "markdown", "source": ["# Title"]}]
        cells += [{"cell_type": "code", "source": source.splitlines(keepends=True)} for source in sources]
        prelude = "from matplotlib import pyplot as plt\nfrom matplotlib.figure import Figure"
        cells.insert(0, {"cell_type": "code", "source": [prelude]})
        notebooks.append({"cells": cells})
        run_notebook.run(notebooks[-1])
    assert notebooks[0] == notebooks[1]
    code = [cell for cell in notebooks[0]["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [1, 2, 3, 4, 5]
    none, text, silent, plot, figure = (cell["outputs"] for cell in code)
    assert none == silent == []
    assert text[0]["text"] == ["text\n"]
    assert text[1]["data"]["text/plain"] == ["2"]
    assert len(plot) == len(figure) == 1
    wide = Image.open(io.BytesIO(base64.b64decode(figure[0]["data"]["image/png"])))
    assert wide.width == run_notebook.WIDEST


def test_the_notebook_tells_nothing_of_the_machine_that_ran_it():
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        shown = [output for output in cell.get("outputs", []) if "image/png" not in output.get("data", {})]
        assert not re.search(r"/(home|root|tmp|usr|Users)/|Traceback|Warning", json.dumps(shown))


def commands(page):
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "keyorbit" in words[:1] or words[:3] == ["python", "-m", "keyorbit"]:
                yield words[1:] if words[0] == "keyorbit" else words[3:]


def parse(words):
    """Let every group and command on the line parse its words, and call nothing."""
    command = get_command(app)
    parent = None
    while True:
        context = command.make_context(words[0] if words else "keyorbit", list(words), parent=parent)
        if not hasattr(command, "resolve_command"):
            return context
        rest = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, rest)
        parent = context


@pytest.mark.parametrize("page", pages_with("sh"))
def test_commands_can_be_parsed(page):
    for words in commands(page):
        parse(words)


def test_a_model_of_ones_own_takes_few_lines_and_is_a_backend():
    """Its use is run as every block of the pages is."""
    block, names = blocks(ROOT / "docs" / "own-model.md", "python")[0], {}
    assert len(block[block.index("class FourViews") :].splitlines()) <= 60
    exec(compile(block, "own-model.md", "exec"), names)
    unet = UNet2DConditionModel(
        block_out_channels=(8,), norm_num_groups=8, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)
    )
    assert isinstance(names["FourViews"]("name", unet), ko.Backend)


def test_every_public_name_has_an_example_and_a_place_on_the_page_of_python():
    """The examples are run as every block of the pages is."""
    page = ROOT / "docs" / "api.md"
    assert set(ko.__all__) <= set(re.findall(r"\bko\.(\w+)", "\n".join(blocks(page, "python"))))
    listed = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)}
    assert listed == set(ko.__all__)


def test_every_help_has_examples_that_can_be_parsed():
    assert set(EXAMPLES) == set(all_words(get_command(app)))
    for name, calls in EXAMPLES.items():
        assert all(call.partition("keyorbit ")[2].startswith(name) for call in calls)
        for call in calls:
            parse(shlex.split(call.partition("keyorbit ")[2]))


def all_words(command, words=()):
    """The words of every command, such as "dataset make"."""
    below = getattr(command, "commands", {})
    return [name for word, one in below.items() for name in all_words(one, (*words, word))] or [" ".join(words)]


def all_commands(command):
    below = getattr(command, "commands", {})
    yield from [command] if not below else (inner for one in below.values() for inner in all_commands(one))


def test_options_have_one_style_of_names_and_all_are_explained():
    """Words with hyphens, in English, behind two hyphens; one option has the same help wherever it is a shared one."""
    for command in all_commands(get_command(app)):
        for param in command.params:
            assert param.param_type_name == "argument" or param.help, (command.name, param.name)
            for word in (*param.opts, *param.secondary_opts):
                if param.param_type_name == "option":
                    assert re.fullmatch(r"--[a-z]+(-[a-z]+)*|-h", word), (command.name, word)


def test_the_commands_of_the_first_page_run(small_world, model_folder, monkeypatch):
    """In the page's order, as a reader would type them; with a small model in place of the others, and few steps."""
    small = {"sudo-ai/zero123plus-v1.2": str(model_folder), "200": "2"}
    told = [[small.get(word, word) for word in words] for words in commands(INDEX)]
    assert [words[0] for words in told] == ["inspect", "discover", "detect", "report", "discover", "detect"]
    # What inspect says is test_shape_report.py's; the second discovery differs by its model alone.
    for words in [*told[1:4], told[5]]:
        more = {"discover": ["--candidates", "8", "--batch", "2", "--noises", "1"], "detect": ["--noises", "1"]}
        monkeypatch.setattr(sys, "argv", ["keyorbit", "-q", *words, *more.get(words[0], [])])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, words
    for made in ("found/overlay.png", "found/points.glb", "run/report.html", "proposed/coco.json"):
        assert Path(made).is_file()


def test_a_wrong_command_is_noticed():
    with pytest.raises(Exception, match=r"[Nn]o such option"):
        parse(["detect", "run", "a.png", "--out", "x", "--colour", "red"])
    with pytest.raises(Exception, match=r"[Nn]o such command"):
        parse(["dataset", "paint"])


def test_the_command_line_page_is_current(tmp_path):
    """Regenerate with: make cli-reference."""
    written = tmp_path / "cli.md"
    command = [sys.executable, "-m", "typer", "keyorbit.cli", "utils", "docs", "--name", "keyorbit"]
    subprocess.run([*command, "--output", str(written)], check=True, capture_output=True)
    assert (ROOT / "docs" / "cli.md").read_text() == written.read_text()


def sentences_of_the_code():
    """Every text of the package, with a private-use character where a value stands."""
    for path in (ROOT / "src" / "keyorbit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "\ue000" for part in node.values)


def in_order(parts, text):
    """Whether the parts stand in the text, one after the other."""
    at = 0
    for part in parts:
        at = text.find(part, at) + len(part)
        if at < len(part):
            return False
    return True


def is_told(sentence, texts):
    """Whether one text of the code says it: the same words in order, with values where the page has dots."""
    told = [part for part in map(str.strip, sentence.split("…")) if part]
    for text in texts:
        known = [part for part in map(str.strip, text.split("\ue000")) if part]
        # What is a value in the code may be written out on the page, as --overwrite is.
        if in_order(told, text) or (sum(map(len, known)) > 20 and in_order(known, sentence)):
            return True
    return False


def test_the_sentences_of_the_troubleshooting_page_are_those_of_the_code():
    texts = list(sentences_of_the_code())
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    told = re.findall(r"^> (.*)$", page, flags=re.MULTILINE)
    assert len(told) >= 20
    assert [sentence for sentence in told if not is_told(sentence, texts)] == []
    assert not is_told("these tokens know this object, and the … is round", texts)
