"""Shapes and types in keyorbit's signatures are checked while the tests run, and only then."""

import jaxtyping

# Before anything imports keyorbit: modules already imported would go unchecked.
jaxtyping.install_import_hook("keyorbit", "beartype.beartype")

import pytest  # noqa: E402
import torch  # noqa: E402

from keyorbit.backends.loading import load_backend  # noqa: E402
from keyorbit.synthetic.tiny_model import TinyConfig, make_tiny, save_folder  # noqa: E402

SMALL = TinyConfig(
    view_size=16,
    width=16,
    unet_channels=(16, 32),
    heads=(2, 4),
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


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
