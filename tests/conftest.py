"""Shapes and types in keyorbit's signatures are checked while the tests run, and only then."""

import jaxtyping

# Before anything imports keyorbit: modules already imported would go unchecked.
jaxtyping.install_import_hook("keyorbit", "beartype.beartype")

import importlib  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from diffusers import PNDMScheduler, UNet2DConditionModel  # noqa: E402

from keyorbit.backends.loading import load_backend  # noqa: E402
from keyorbit.synthetic.tiny_model import TinyConfig, make_tiny, save_folder  # noqa: E402

SMALL = TinyConfig(
    view_size=16,
    width=16,
    unet_channels=(16, 32),
    heads=(2, 4),
    fine_attention=True,
    vae_channels=(8, 8),
    text_layers=1,
    vision_layers=1,
    vision_width=16,
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A Zero123++ folder with random weights: 16-pixel views, latents of 24 x 16."""
    folder = tmp_path_factory.mktemp("model")
    save_folder(make_tiny(SMALL, seed=1), folder, SMALL.view_size)
    return folder


@pytest.fixture(scope="session")
def backend(model_folder):
    return load_backend(model_folder)


def save_stable_diffusion(folder, prediction="epsilon", sample_size=16):
    """A folder as Stable Diffusion 1.5 has it, with random weights: 32-pixel pictures, latents of 16 x 16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        unet = UNet2DConditionModel(
            sample_size=sample_size,
            block_out_channels=(16, 32, 32),
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=SMALL.width,
            attention_head_dim=2,
            norm_num_groups=8,
        )
    parts = make_tiny(SMALL, seed=1)
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        steps_offset=1,
        prediction_type=prediction,
    )
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0"}
    for name, part in {
        "vae": parts.vae,
        "unet": unet,
        "text_encoder": parts.text_encoder,
        "tokenizer": parts.tokenizer,
        "scheduler": scheduler,
    }.items():
        part.save_pretrained(folder / name)
        library = "transformers" if name in ("text_encoder", "tokenizer") else "diffusers"
        index[name] = [library, type(part).__name__]
    # The published folders have the tokenizer as vocabulary and merges, and two parts that are not used here.
    whole = folder / "tokenizer" / "tokenizer.json"
    model = json.loads(whole.read_text())["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *pairs]) + "\n")
    whole.unlink()
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.fixture(scope="session")
def stable_diffusion_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable_diffusion")
    save_stable_diffusion(folder)
    return folder


@pytest.fixture(scope="session")
def stable_diffusion(stable_diffusion_folder):
    return load_backend(stable_diffusion_folder)


@pytest.fixture
def run_here(monkeypatch):
    """Runs the command line in this process, on one thread: a process of its own would take its time to start."""
    from keyorbit.cli import main

    threads = torch.get_num_threads()

    def run(words):
        torch.set_num_threads(1)
        monkeypatch.setattr(sys, "argv", ["keyorbit", *map(str, words)])
        with pytest.raises(SystemExit, match="0"):
            main()

    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def benchmark_script():
    """Imports a script of benchmarks/ by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        yield importlib.import_module


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def command(monkeypatch):
    """Runs the command line in this process, and answers its exit status."""
    from keyorbit.cli import main

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["keyorbit", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0

    return run
