"""Every block of code in the README and the documentation runs, and every command in them can be parsed."""

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
from PIL import Image
from typer.main import get_command

import keyorbit as ko
from keyorbit.cli import app
from keyorbit.synthetic.dataset import make_dataset

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GENERATED = {"cli.md", "shape-report.md"}


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def pages_with(language):
    return [pytest.param(page, id=page.stem) for page in PAGES if page.name not in GENERATED and blocks(page, language)]


@pytest.fixture
def small_world(monkeypatch, tmp_path, backend):
    """A folder with the data that the pages name, and a model and step counts for which a block takes a second."""
    make_dataset(tmp_path / "chairs", "chair", 2, 1, backend.view_size)
    matplotlib.use("Agg")
    picture = Image.open(next((tmp_path / "chairs").glob("*/cond.png"))).convert("RGB")
    picture.save(tmp_path / "chair.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ko, "load_backend", lambda *args, **options: backend)
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


@pytest.mark.parametrize("page", pages_with("python"))
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


def test_the_notebook_runs_top_to_bottom(small_world):
    """With the small model; the page in examples/ shows what the shipped one gave."""
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())
    names = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            small = f"objects=3, size={small_world['backend'].view_size}"
            source = "".join(cell["source"]).replace("objects=40", small)
            exec(compile(source, "quickstart.ipynb", "exec"), names)
    assert names["result"].landmark_3d > 0
    names["plt"].close("all")  # a notebook shows figures; other tests make sure that the library does not


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
