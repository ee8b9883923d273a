"""Fixtures that several files share; types are checked while the tests run; `pytest --quick` for the loop."""

import ast
import importlib
import importlib.util
import os
from collections import Counter
from functools import partial

import hypothesis
import jaxtyping
import pytest
import torch

# Where no device is named, tests are of the CPU, though a GPU would be chosen: its results are bit-identical.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
torch.backends.mps.is_available = lambda: False

# What takes seconds to import or to run: networks, the command line, other processes, a browser. `--quick` leaves out
# the files that import one of these, the tests whose fixtures make a model or run a command, and what tests things
# outside the package.
SLOW_IMPORTS = (
    *("accelerate", "diffusers", "transformers", "peft", "tiny_model", "multiprocessing", "subprocess"),
    *("keyorbit.app", "keyorbit.cli", "keyorbit.diffusion.backends", "keyorbit.diffusion.inspection"),
    *("keyorbit.training.train", "helpers.browser", "helpers.command_line", "helpers.models"),
)
TALLY = pytest.StashKey[Counter]()
SLOW_FOLDERS = {"benchmarks", "recipes"}
SLOW_FIXTURES = {"model_folder", "stable_diffusion_folder", "run_here", "command"}


# Files of tests that take half a minute or more; these begin first, if xdist is told not to sort files by their tests.
LONGEST = (
    *("test_other_device.py", "test_launchers.py", "test_ranks.py", "test_training.py", "test_train_tiny.py"),
    *("test_app.py", "test_runs.py", "test_quality_benchmark.py", "test_docs.py", "test_main.py", "test_overwrite.py"),
    "test_on_ray.py",
)


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="leave out what needs a model, a command or a process")
    parser.addoption(
        "--chaos", type=int, default=0, metavar="N", help="all wrong inputs and kills, with seed N, and the table"
    )


def pytest_configure(config):
    """Shapes and types in keyorbit's signatures are checked while the tests run, and only then."""
    # What is imported from within a checked module is compiled anew, since the hook has a bytecode cache of its own:
    # the large ones are imported before it.
    early = ["scipy.ndimage", "scipy.optimize", "matplotlib.figure", "trimesh"]
    if not config.getoption("quick"):
        early += ["transformers.models.clip.modeling_clip", "diffusers.models.unets.unet_2d_condition"]
        early += ["diffusers.models.controlnets.controlnet", "diffusers.schedulers", "accelerate", "peft"]
    for name in early:
        if importlib.util.find_spec(name.partition(".")[0]):  # without an extra, its tests skip
            importlib.import_module(name)
    # Of wrong inputs and kills, `make test` tries the same few each time.
    chaos = config.getoption("chaos")
    hypothesis.settings.register_profile("few", max_examples=20, derandomize=True, deadline=None, database=None)
    hypothesis.settings.register_profile("all", max_examples=500, deadline=None, database=None)
    hypothesis.settings.load_profile("all" if chaos else "few")
    config.stash[TALLY] = Counter()
    # Before anything imports keyorbit: modules already imported would go unchecked.
    jaxtyping.install_import_hook(["keyorbit", "tiny_model"], "beartype.beartype")


def pytest_terminal_summary(terminalreporter, config):
    """What was tried, what it came to, how often: the table of `make chaos`."""
    if config.getoption("chaos"):
        for (area, tried, outcome), number in sorted(config.stash[TALLY].items()):
            terminalreporter.write_line(f"| {area} | {tried} | {outcome} | {number} |")


def imported(path):
    """Names of the modules that a file imports at its top."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def pytest_ignore_collect(collection_path, config):
    if config.getoption("quick") and collection_path.suffix == ".py":
        slow = tuple(f"{name}." for name in SLOW_IMPORTS)
        slow_imports = any(f"{name}.".startswith(slow) for name in imported(collection_path))
        return slow_imports or collection_path.parent.name in SLOW_FOLDERS or None
    return None


def pytest_collection_modifyitems(config, items):
    # Files go to the processes in this order: what takes longest begins first, so that they end together.
    items.sort(key=lambda item: item.path.name not in LONGEST)
    if config.getoption("quick"):
        slow = [item for item in items if SLOW_FIXTURES & set(getattr(item, "fixturenames", ()))]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(scope="session")
def chaos(pytestconfig):
    """The seed with which all wrong inputs and kills are tried; 0 where a few have to do."""
    return pytestconfig.getoption("chaos")


@pytest.fixture(scope="session")
def tally(pytestconfig):
    """Counts by area, what was tried, and what it came to; `make chaos` prints it."""
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A Zero123++ folder with random weights: 16-pixel views, latents of 24 x 16."""
    from helpers.models import SMALL
    from tiny_model.model import make_tiny, save_folder

    folder = tmp_path_factory.mktemp("model")
    save_folder(make_tiny(SMALL, seed=1), folder, SMALL.view_size)
    return folder


@pytest.fixture(scope="session")
def backend(model_folder):
    from keyorbit.diffusion.backends.loading import load_backend

    return load_backend(model_folder)


@pytest.fixture(scope="session")
def stable_diffusion_folder(tmp_path_factory):
    from helpers.models import save_stable_diffusion

    folder = tmp_path_factory.mktemp("stable_diffusion")
    save_stable_diffusion(folder)
    return folder


@pytest.fixture(scope="session")
def stable_diffusion(stable_diffusion_folder):
    from keyorbit.diffusion.backends.loading import load_backend

    return load_backend(stable_diffusion_folder)


@pytest.fixture(scope="session")
def chairs(tmp_path_factory):
    """A data set of three chairs in views of 16 pixels. Read only: a test that changes it copies it first."""
    from keyorbit.synthetic.dataset import make_dataset
    from keyorbit.synthetic.plan import DatasetSpec

    folder = tmp_path_factory.mktemp("chairs")
    make_dataset(folder, DatasetSpec("chair", 3, seed=1, size=16))
    return folder


@pytest.fixture(scope="session")
def objects(chairs):
    """The three chairs."""
    from keyorbit.objects.dataset import load_dataset

    return list(load_dataset(chairs))


@pytest.fixture
def run_here(command):
    """Runs the command line in this process, on one thread: a process of its own would take its time to start."""
    threads = torch.get_num_threads()

    def run(words):
        torch.set_num_threads(1)
        assert command(*words) == 0

    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def benchmark_script():
    """Imports a script of benchmarks/ by its name."""
    return importlib.import_module


@pytest.fixture
def few_denoising_steps(monkeypatch):
    """Views are generated in two steps where nobody says how many: what runs at each is the same."""
    from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend

    generate = Zero123PlusBackend.generate

    def briefly(self, images, generator, steps=2, *more, **options):
        return generate(self, images, generator, steps, *more, **options)

    monkeypatch.setattr(Zero123PlusBackend, "generate", briefly)


@pytest.fixture(scope="session")
def few_planted(tmp_path_factory):
    """Settings for `discover --config`: planting is most of a short run, and no longer one plants otherwise."""
    path = tmp_path_factory.mktemp("settings") / "few.toml"
    path.write_text("planting = 2\nexemplars = 1")
    return path


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def command(monkeypatch):
    """Runs the command line in this process, and returns its exit status."""
    from helpers.command_line import call

    return partial(call, monkeypatch)


@pytest.fixture
def deterministic():
    """Torch's deterministic algorithms, for one test."""
    import torch

    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
