"""The storeys of DESIGN section 6: a module imports only from its own storey or a lower one."""

import ast
import sys
from pathlib import Path

import pytest

import keyorbit

ROOT = Path(keyorbit.__file__).parent
STOREYS = [
    {
        "views",
        "camera_checks",
        "cameras",
        "rigs",
        "heatmaps",
        "warps",
        "losses",
        "selection",
        "triangulation",
        "evidence",
        "multiview",
        "canonical",
        "constellation",
        "stretch",
        "input_view",
        "metrics",
        "keypoints",
        "pose",
        "skeleton",
        "errors",
        "palette",
    },
    {"attention", "checkpoint", "files", "folder_names", "hub", "outputs", "pictures", "ranks", "tokens", "backends"},
    {
        "data",
        "prepare",
        "silhouettes",
        "queries",
        "query_cache",
        "sources",
        "cache_index",
        "disk_cache",
        "cache_build",
        "objective",
        "discover",
        "discover_config",
        "discover_run",
        "discover_constellation",
        "captures",
        "detect",
        "settings_file",
        "training",
        "layerwise",
        "evaluate",
        "judged",
        "measures",
        "surfaces",
        "readers",
        "protocol",
        "synthetic",
        "inspection",
    },
    {
        "export",
        "colmap",
        "scenes",
        "plotting",
        "rerun_log",
        "results",
        "tables",
        "loss_log",
        "panels",
        "report",
        "app",
        "commands",
        "cli",
        "__init__",
        "__main__",
    },
]
MATHEMATICS_MAY_IMPORT = {"torch", "einops", "jaxtyping", "typing_extensions", "keyorbit"}
MODULES = sorted(ROOT.rglob("*.py"))


def storey(part):
    found = [i for i, names in enumerate(STOREYS) if part in names]
    assert found, f"{part!r} belongs to no storey: list it in tests/test_storeys.py"
    return found[0]


def part_of(path):
    """The module or package directly under keyorbit that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def package_of(path):
    return ["keyorbit", *path.relative_to(ROOT).parent.parts]


def imports(tree, package):
    """Full names of what a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from keyorbit import views` imports keyorbit.views, and `from x import y` no more than x.
            if module == "keyorbit":
                yield from (f"keyorbit.{alias.name}" for alias in node.names)
            else:
                yield module


def breaches(source, part, package):
    """What in a module's source breaks the rules, in words."""
    tree = ast.parse(source)
    for name in imports(tree, package):
        top, *rest = name.split(".")
        if top == "keyorbit":
            # Bare `import keyorbit` reaches everything, so it counts as the top storey.
            target = rest[0] if rest else "__init__"
            if storey(target) > storey(part):
                yield f"{part} imports {name} from a higher storey"
        elif storey(part) == 0 and top not in sys.stdlib_module_names | MATHEMATICS_MAY_IMPORT:
            yield f"{part} is mathematics, and imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{part} prints in line {node.lineno}"
    yield from device_literals(tree, part)


def device_literals(tree, part):
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            name, _, number = node.value.partition(":")
            if name == "cuda" and (not number or number.isdigit()):
                yield f"{part} names the device {node.value!r} in line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_keeps_to_its_storey(path):
    assert list(breaches(path.read_text(encoding="utf-8"), part_of(path), package_of(path))) == []


def test_the_mathematics_is_all_there():
    assert {part_of(p) for p in MODULES} >= STOREYS[0]


@pytest.mark.parametrize(
    ("source", "part", "package", "words"),
    [
        ("from keyorbit.tokens import Tokens", "losses", ["keyorbit"], "higher storey"),
        ("from keyorbit import data", "tokens", ["keyorbit"], "higher storey"),
        ("import keyorbit.cli", "discover", ["keyorbit"], "higher storey"),
        ("import keyorbit", "views", ["keyorbit"], "higher storey"),
        ("from ..discover import x", "backends", ["keyorbit", "backends"], "higher storey"),
        ("from .. import training", "backends", ["keyorbit", "backends"], "higher storey"),
        ("def f():\n    from .attention import x", "views", ["keyorbit"], "higher storey"),
        ("import numpy as np", "metrics", ["keyorbit"], "mathematics"),
        ("from scipy.optimize import x", "cameras", ["keyorbit"], "mathematics"),
        ("print(1)", "cli", ["keyorbit"], "prints in line 1"),
        ("x = y.to('cuda:0')", "backends", ["keyorbit", "backends"], "names the device"),
        ("def f(device='cuda'): pass", "training", ["keyorbit"], "names the device"),
    ],
)
def test_a_breach_is_found(source, part, package, words):
    found = list(breaches(source, part, package))
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("source", "part", "package"),
    [
        (
            "import math\nimport torch.nn.functional as F\nfrom keyorbit.views import Layout",
            "losses",
            ["keyorbit"],
        ),
        ("from .base import Backend\nfrom ..attention import capture", "backends", ["keyorbit", "backends"]),
        ("import scipy\nfrom keyorbit.views import Layout", "evaluate", ["keyorbit"]),
        ('"""cuda"""\nhelp = "for example cuda or cpu"', "cli", ["keyorbit"]),
    ],
)
def test_good_manners_pass(source, part, package):
    assert list(breaches(source, part, package)) == []


def test_an_unlisted_module_is_noticed():
    with pytest.raises(AssertionError, match="'utils' belongs to no storey"):
        storey("utils")
