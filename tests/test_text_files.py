"""Text is UTF-8 wherever it is read or written: no call leaves the encoding to the machine's locale."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "recipes", "benchmarks", "examples")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
# Where a call's mode stands among its arguments: `open(path, "w")`, `path.open("w")`.
MODE = {"open": 1, ".open": 0, "fdopen": 1, ".fdopen": 1}
# What else has a function of that name: pictures, file descriptors, archives, file systems.
OTHERS = {"Image", "os", "tarfile", "archive", "system"}


def by_locale(tree):
    """Lines of the calls that open text in the encoding of the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        words = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in words:
            continue
        match node.func:
            case ast.Attribute(attr="read_text" | "write_text"):
                yield node.lineno
            case ast.Attribute(value=ast.Name("subprocess")) if words.keys() & {"text", "universal_newlines"}:
                yield node.lineno
            case ast.Name(name) | ast.Attribute(attr=name):
                place = MODE.get(name if isinstance(node.func, ast.Name) else f".{name}")
                if place is None:
                    continue
                mode = words.get("mode", node.args[place] if len(node.args) > place else ast.Constant("r"))
                owner = node.func.value.id if isinstance(getattr(node.func, "value", None), ast.Name) else ""
                binary = isinstance(mode, ast.Constant) and "b" in str(mode.value)
                if not (binary or owner in OTHERS):
                    yield node.lineno


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("p.read_text()", True),
        ("p.write_text(a)", True),
        ("open(p)", True),
        ("p.open('w')", True),
        ("p.open(mode)", True),
        ("subprocess.run(a, text=True)", True),
        ("p.read_text(encoding='utf-8')", False),
        ("write_text(p, a)", False),
        ("open(p, 'rb')", False),
        ("p.open('wb')", False),
        ("p.open(mode='rb')", False),
        ("Image.open(p)", False),
        ("os.open(p, os.O_RDWR)", False),
        ("subprocess.run(a, text=True, encoding='utf-8')", False),
    ],
)
def test_what_is_found(code, found):
    assert bool(list(by_locale(ast.parse(code)))) is found


def test_no_text_is_in_the_locales_encoding():
    found = {
        str(path.relative_to(ROOT)): lines
        for path in FILES
        if (lines := list(by_locale(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert len(FILES) > 100
    assert found == {}
