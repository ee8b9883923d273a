"""Shapes and types in keyorbit's signatures are checked while the tests run, and only then."""

import jaxtyping

# Before anything imports keyorbit: modules already imported would go unchecked.
jaxtyping.install_import_hook(["keyorbit", "tiny_model"], "beartype.beartype")

import importlib  # noqa: E402
from functools import partial  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402

from helpers.command_line import call  # noqa: E402
from helpers.models import SMALL, save_stable_diffusion  # noqa: E402
from keyorbit.diffusion.backends.loading import load_backend  # noqa: E402
from keyorbit.objects.dataset import load_dataset  # noqa: E402
from keyorbit.synthetic.dataset import make_dataset  # noqa: E402
from tiny_model.model import make_tiny, save_folder  # noqa: E402


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A Zero123++ folder with random weights: 16-pixel views, latents of 24 x 16."""
    folder = tmp_path_factory.mktemp("model")
    save_folder(make_tiny(SMALL, seed=1), folder, SMALL.view_size)
    return folder


@pytest.fixture(scope="session")
def backend(model_folder):
    return load_backend(model_folder)


@pytest.fixture(scope="session")
def stable_diffusion_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stable_diffusion")
    save_stable_diffusion(folder)
    return folder


@pytest.fixture(scope="session")
def stable_diffusion(stable_diffusion_folder):
    return load_backend(stable_diffusion_folder)


@pytest.fixture(scope="session")
def chairs(tmp_path_factory):
    """A data set of three chairs in views of 16 pixels. Read only: a test that changes it copies it first."""
    folder = tmp_path_factory.mktemp("chairs")
    make_dataset(folder, "chair", 3, seed=1, size=16)
    return folder


@pytest.fixture(scope="session")
def objects(chairs):
    """The three chairs."""
    return list(load_dataset(chairs))


@pytest.fixture
def run_here(monkeypatch):
    """Runs the command line in this process, on one thread: a process of its own would take its time to start."""
    threads = torch.get_num_threads()

    def run(words):
        torch.set_num_threads(1)
        assert call(monkeypatch, *words) == 0

    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def benchmark_script():
    """Imports a script of benchmarks/ by its name."""
    return importlib.import_module


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def command(monkeypatch):
    """Runs the command line in this process, and returns its exit status."""
    return partial(call, monkeypatch)
