"""The rooms of the package: what each may import, that no import goes round or up, and what costs time at the door."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import keyorbit

ROOT = Path(keyorbit.__file__).parent
# What each room may import, besides itself and `errors`, `values` and `results`; and all that these may.
ROOMS = {
    "geometry": (),
    "storage": (),
    "objects": ("geometry", "storage", "budget"),
    "diffusion": ("objects", "ranks", "devices"),
    "synthetic": ("objects",),
    "discovery": ("diffusion",),
    "detection": ("discovery",),
    "training": ("discovery",),
    "evaluation": ("detection", "synthetic"),
    "output": ("detection",),
}
# The edges may import everything.
EDGES = (
    "app",
    "cli",
    "budget",
    "determinism",
    "devices",
    "ranks",
    "errors",
    "results",
    "values",
    "__init__",
    "__main__",
)
MATHEMATICS = {"torch", "numpy", "scipy", "einops", "jaxtyping", "typing_extensions", "msgspec", "keyorbit"}
FLOORS = 10
MODULES = sorted(ROOT.rglob("*.py"))


def room_of(name):
    """The room of a full module name: what is directly under keyorbit."""
    return [*name.split("."), "__init__"][1]


def name_of(path):
    parts = list(path.relative_to(ROOT.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path) for path in MODULES}


def allowed(room):
    """All rooms that a room may import."""
    direct = ROOMS[room]
    return {room, "errors", "values", "results", *direct}.union(*(allowed(other) for other in direct if other in ROOMS))


def run_at_import(body):
    """Every statement that runs when a module is imported: also within if, try and with, not within functions."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "handlers", "finalbody"):
                yield from run_at_import(getattr(node, part, []))


def imports(tree, package):
    """Full names of the modules that a module imports, wherever in it; and whether that is when it is imported."""
    early = {id(node) for node in run_at_import(tree.body)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in early) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from package import module` imports that module; `from module import name` the module only.
                below = f"{module}.{alias.name}"
                public = module == "keyorbit" and below not in NAMES
                yield below if below in NAMES or public else module, id(node) in early


def package_of(path):
    return ["keyorbit", *path.relative_to(ROOT).parent.parts]


def breaches(source, room, package):
    """What in a module's source breaks the rules, in words."""
    tree = ast.parse(source)
    for name in dict.fromkeys(name for name, _ in imports(tree, package)):
        top = name.split(".")[0]
        if top == "keyorbit":
            if room in ROOMS and room_of(name) not in allowed(room):
                yield f"{room} imports {name}"
        elif room == "geometry" and top not in sys.stdlib_module_names | MATHEMATICS:
            yield f"{room} is mathematics, and imports {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{room} prints in line {node.lineno}"
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            name, _, number = node.value.partition(":")
            if name == "cuda" and (not number or number.isdigit()) and room != "devices":  # which chooses it
                yield f"{room} names the device {node.value!r} in line {node.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_keeps_to_its_room(path):
    assert list(breaches(path.read_text(encoding="utf-8"), room_of(name_of(path)), package_of(path))) == []


def test_every_room_is_listed():
    assert {room_of(name) for name in NAMES} - {"assets"} == {*ROOMS, *EDGES} - {"__init__"} | {"__init__"}


@cache
def our_imports(late):
    """Which of our modules each of them imports when it is imported; with ``late`` also those within functions."""
    found = {}
    for path in MODULES:
        names = imports(ast.parse(path.read_text(encoding="utf-8")), package_of(path))
        found[name_of(path)] = {name for name, early in names if (early or late) and name in NAMES} - {name_of(path)}
    return found


def floors(edges):
    """The floor of every module: 1 where it imports none of ours. AssertionError where imports go round."""
    known = {}

    def floor(name, above=()):
        assert name not in above, f"imports go round: {' → '.join([*above[above.index(name) :], name])}"
        if name not in known:
            known[name] = 1 + max((floor(other, (*above, name)) for other in edges[name]), default=0)
        return known[name]

    for name in edges:
        floor(name)
    return known


def test_the_house_has_few_floors_and_no_import_goes_round():
    high = {name: number for name, number in floors(our_imports(late=False)).items() if number > FLOORS}
    assert high == {}
    floors(our_imports(late=True))  # raises where imports go round


def test_a_round_of_imports_is_found():
    with pytest.raises(AssertionError, match="a → b → a"):
        floors({"a": {"b"}, "b": {"a"}})
    assert floors({"a": {"b"}, "b": {"c"}, "c": set()}) == {"a": 3, "b": 2, "c": 1}


@pytest.mark.parametrize(
    ("source", "room", "package", "words"),
    [
        ("from keyorbit.diffusion.tokens import Tokens", "geometry", ["keyorbit", "geometry"], "geometry imports"),
        ("from keyorbit import discovery", "diffusion", ["keyorbit", "diffusion"], "diffusion imports"),
        ("from keyorbit import discover", "discovery", ["keyorbit", "discovery"], "discovery imports"),
        ("import keyorbit.cli", "discovery", ["keyorbit", "discovery"], "discovery imports"),
        ("import keyorbit", "geometry", ["keyorbit", "geometry"], "geometry imports"),
        ("from ..discovery.run import x", "diffusion", ["keyorbit", "diffusion"], "diffusion imports"),
        ("from .. import training", "evaluation", ["keyorbit", "evaluation"], "evaluation imports"),
        ("from keyorbit.synthetic.render import x", "training", ["keyorbit", "training"], "training imports"),
        ("from keyorbit.evaluation.measures import x", "output", ["keyorbit", "output"], "output imports"),
        ("def f():\n    from keyorbit.objects import x", "geometry", ["keyorbit", "geometry"], "geometry imports"),
        ("import trimesh", "geometry", ["keyorbit", "geometry"], "mathematics"),
        ("print(1)", "cli", ["keyorbit", "cli"], "prints in line 1"),
        ("x = y.to('cuda:0')", "diffusion", ["keyorbit", "diffusion"], "names the device"),
        ("def f(device='cuda'): pass", "training", ["keyorbit", "training"], "names the device"),
    ],
)
def test_a_breach_is_found(source, room, package, words):
    found = list(breaches(source, room, package))
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("source", "room", "package"),
    [
        ("import math\nimport scipy\nfrom keyorbit.errors import InputError", "geometry", ["keyorbit", "geometry"]),
        ("from .base import Backend\nfrom ..attention import x", "diffusion", ["keyorbit", "diffusion", "backends"]),
        ("from keyorbit.geometry.views import Layout", "evaluation", ["keyorbit", "evaluation"]),
        ('"""cuda"""\nhelp = "for example cuda or cpu"', "cli", ["keyorbit", "cli"]),
    ],
)
def test_good_manners_pass(source, room, package):
    assert list(breaches(source, room, package)) == []


def test_what_runs_at_import_is_seen_within_other_statements():
    source = "if x:\n    import a\ntry:\n    import b\nexcept E:\n    import c\ndef f():\n    import d\n"
    source += "class K:\n    import e\nif TYPE_CHECKING:\n    import f\n"
    early = {name for name, early in imports(ast.parse(source), ["keyorbit"]) if early}
    assert early == {"a", "b", "c", "e"}
