"""Do the tests see small faults? ``python benchmarks/mutants.py --out runs/mutants`` writes a table and JSON.

A mutant is the source with one thing changed: a number, an operator, a comparison, an axis, a dropped call. The tests
of its group run on it, in a copy of the tree. Tests that fail, or do not end, kill the mutant; a mutant that survives
is a fault that no test detects. Results are kept as they come: the same command goes on where it was stopped. Mutants
are drawn with a seed from all places in the sources; texts, types, log messages and errors are never changed.

Why not mutmut or cosmic-ray: mutmut changes function bodies only, so no threshold of a module or default of a settings
class; cosmic-ray changes the working tree and knows one command for all tests; neither draws a sample.

A mutant that computes the same is equivalent: write why as its "note" in the JSON file, and it counts no longer.
"""

import argparse
import ast
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = Path("src/keyorbit")


@dataclass(frozen=True)
class Group:
    """Sources, as globs in src/keyorbit, and the tests that hold them, as globs in tests."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "geometry": Group(("geometry/*.py",), ("geometry/test_*.py",)),
    "metrics": Group(("evaluation/metrics/*.py",), ("evaluation/test_metrics*.py", "evaluation/test_planted_world.py")),
    "evaluation": Group(
        ("evaluation/*.py",),
        tuple(f"evaluation/test_{name}.py" for name in ("planted_world", "measures", "evaluate", "protocol")),
    ),
    "detection": Group(("detection/*.py",), ("detection/test_*.py",)),
}

COMPARISONS = {"<": ("<=", ">"), "<=": ("<", ">="), ">": (">=", "<"), ">=": (">", "<="), "==": ("!=",), "!=": ("==",)}
ARITHMETIC = {"+": ("-",), "-": ("+",), "*": ("/",), "/": ("*",), "//": ("*",), "&": ("|",)}
LOGIC = {"and": ("or",), "or": ("and",)}
_PAIRS = ("min max", "amin amax", "argmin argmax", "minimum maximum", "any all", "floor ceil", "clamp_min clamp_max")
CALLS = {a: b for pair in map(str.split, _PAIRS) for a, b in (pair, pair[::-1])}
AXES = {-1: -2, -2: -1, -3: -2, 0: 1, 1: 0, 2: 1}
# Calls whose first argument is an axis.
ALONG = ("sum", "mean", "amin", "amax", "argmin", "argmax", "any", "all", "cumsum", "prod", "softmax", "roll", "median")
_WORDS = "Lt < LtE <= Gt > GtE >= Eq == NotEq != Add + Sub - Mult * Div / FloorDiv // BitAnd & And and Or or"
SYMBOLS = {getattr(ast, kind): symbol for kind, symbol in re.findall(r"(\S+) (\S+)", _WORDS)}


@dataclass(frozen=True)
class Mutant:
    """One change: bytes ``start`` to ``end`` of a file become ``after``. outcome: killed, survived or timeout."""

    group: str
    file: str
    line: int
    start: int
    end: int
    before: str
    after: str
    outcome: str = ""
    seconds: float = 0.0
    note: str = ""

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """What makes it the same mutant in another run, as long as the source is the same."""
        return self.group, self.file, self.start, self.before, self.after


class Places(ast.NodeVisitor):
    """Collects the changes that a source allows, as (start, end, after) in bytes, one list for each place."""

    def __init__(self, source: bytes) -> None:
        self.source, self.found = source, list[list[tuple[int, int, str]]]()
        self.lines = [0]
        for line in source.splitlines(keepends=True):
            self.lines.append(self.lines[-1] + len(line))
        self.visit(ast.parse(source))

    def span(self, node: ast.expr) -> tuple[int, int]:
        """Where a node begins and ends."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.lines[node.lineno - 1] + node.col_offset, self.lines[node.end_lineno - 1] + node.end_col_offset

    def change(self, node: ast.expr, *after: str) -> None:
        """The node may become any of these."""
        self.found.append([(*self.span(node), text) for text in after])

    def between(self, left: ast.expr, right: ast.expr, kind: type, table: dict[str, tuple[str, ...]]) -> None:
        """The operator of that kind, which stands between two operands, may become another one."""
        symbol, start, end = SYMBOLS.get(kind, ""), self.span(left)[1], self.span(right)[0]
        place = re.search(re.escape(symbol).encode(), self.source[start:end])
        if symbol in table and place is not None:
            self.found.append([(start + place.start(), start + place.end(), after) for after in table[symbol]])

    # What is never changed: types, decorators, errors, assertions, log messages, texts, lists of names.
    def skip(self, node: ast.AST) -> None:
        """Nothing in there."""

    visit_Raise = visit_Assert = visit_JoinedStr = visit_Import = visit_ImportFrom = skip

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Defaults and body only."""
        for part in (*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None), *node.body):
            self.visit(part)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        """The body only."""
        for part in node.body:
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """The value only."""
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Values, but for aliases of types and lists of names, which begin with a capital or an underscore twice."""
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        if not any(name.startswith("__") or (name[0].isupper() and not name.isupper()) for name in names):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Numbers and truth values."""
        value = node.value
        if isinstance(value, bool):
            self.change(node, str(not value))
        elif isinstance(value, int):
            self.change(node, str(value + 1), str(value - 1) if value > 0 else "2")
        elif isinstance(value, float):
            self.change(node, *((repr(1.2 * value), repr(0.8 * value)) if value else ("0.1", "1.0")))

    def visit_Slice(self, node: ast.Slice) -> None:
        """A bound moves inwards: one that moves outwards often changes nothing."""
        for bound, step in ((node.lower, 1), (node.upper, -1)):
            if isinstance(bound, ast.Constant) and isinstance(bound.value, int):
                self.change(bound, str(bound.value + step))
            elif bound is not None:
                self.visit(bound)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        """A dropped minus or not."""
        if isinstance(node.op, ast.USub | ast.Not | ast.Invert):
            start, end = self.span(node.operand)
            # Parentheses round the operand are not part of it.
            self.found.append([(self.span(node)[0], end, self.source[start:end].decode())] if self._bare(node) else [])
        self.visit(node.operand)

    def _bare(self, node: ast.UnaryOp) -> bool:
        return b"(" not in self.source[self.span(node)[0] : self.span(node.operand)[0]]

    def visit_Compare(self, node: ast.Compare) -> None:
        """Each comparison of a chain."""
        operands = [node.left, *node.comparators]
        for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
            self.between(left, right, type(op), COMPARISONS)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        """Arithmetic, and & of masks."""
        self.between(node.left, node.right, type(node.op), ARITHMETIC)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        """And, or."""
        self.between(node.values[0], node.values[1], type(node.op), LOGIC)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        """Another function, a dropped call, another axis."""
        name, method = "", isinstance(node.func, ast.Attribute)
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
                return
        elif isinstance(node.func, ast.Name):
            name = node.func.id
        end = self.span(node.func)[1]
        if name in CALLS:
            self.found.append([(end - len(name), end, CALLS[name])])
        if isinstance(node.func, ast.Attribute) and (name == "abs" or name.startswith("clamp")):
            receiver, stop = self.span(node.func.value)[1], self.span(node)[1]
            self.found.append([(receiver, stop, "")])
        axes = [keyword.value for keyword in node.keywords if keyword.arg in ("dim", "axis")]
        axes += node.args[:1] if method and name in ALONG else []
        for part in ast.iter_child_nodes(node):
            if not isinstance(part, ast.keyword):
                self._axis_or(part, axes)
            elif part.arg not in ("strict", "stacklevel"):
                self._axis_or(part.value, axes)

    def _axis_or(self, part: ast.AST, axes: list[ast.expr]) -> None:
        """An axis becomes its neighbour; what is none, or several, is looked at as anything else."""
        if part in axes and isinstance(part, ast.Constant | ast.UnaryOp):
            try:
                axis = ast.literal_eval(part)
            except ValueError:
                axis = None
            if type(axis) is int and axis in AXES:
                self.change(part, str(AXES[axis]))
                return
        self.visit(part)


def mutants_of(source: bytes, group: str, file: str) -> list[list[Mutant]]:
    """All mutants of a source, those of one place together."""

    def mutant(start: int, end: int, after: str) -> Mutant:
        line = source[:start].count(b"\n") + 1
        return Mutant(group, file, line, start, end, source[start:end].decode(), after)

    return [[mutant(*change) for change in changes] for changes in Places(source).found if changes]


def mutated(source: bytes, mutant: Mutant) -> bytes:
    """The source with the change made."""
    return source[: mutant.start] + mutant.after.encode() + source[mutant.end :]


def compiles(mutant: Mutant) -> bool:
    """Whether the mutant is Python at all."""
    try:
        compile(mutated((ROOT / mutant.file).read_bytes(), mutant), mutant.file, "exec")
    except SyntaxError:
        return False
    return True


def draw(count: int, seed: int, groups: dict[str, Group] = GROUPS) -> list[Mutant]:
    """``count`` mutants at different places, the same number of each group; a longer draw begins with the shorter."""
    queues = []
    for name, group in groups.items():
        chance = random.Random(f"{seed} {name}")
        files = sorted({path for glob in group.sources for path in (ROOT / PACKAGE).glob(glob)})
        places = [place for path in files for place in mutants_of(path.read_bytes(), name, str(path.relative_to(ROOT)))]
        chance.shuffle(places)
        queues.append(filter(compiles, [chance.choice(place) for place in places]))
    # zip draws no further than it has to: to try what compiles takes a while.
    return list(islice((mutant for row in zip(*queues, strict=False) for mutant in row), count))


def run_tests(tree: Path, group: Group, timeout: float | None, first: str = "") -> tuple[str, float]:
    """What became of the tests in that tree, passed, failed or timeout, and the seconds they took.

    first: files with this in their names are run before the others, which mostly spares these.
    """
    paths = [path.relative_to(tree) for glob in group.tests for path in (tree / "tests").glob(glob)]
    tests = [str(path) for path in sorted(paths, key=lambda path: (first not in path.stem, path))]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    path = os.pathsep.join([str(tree / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | threads | {"PYTHONPATH": path}
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    began = time.monotonic()
    try:
        done = subprocess.run(
            words, cwd=tree, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return "timeout", time.monotonic() - began
    return "failed" if done.returncode else "passed", time.monotonic() - began


def write(file: Path, source: bytes) -> None:
    """Replace a source, at a later time: bytecode is told apart from older bytecode by whole seconds."""
    later = file.stat().st_mtime + 2
    file.write_bytes(source)
    os.utime(file, (later, later))


def judge(mutants: list[Mutant], known: dict[Any, Mutant], groups: dict[str, Group]) -> Iterator[Mutant]:
    """The mutants with their outcomes, one after the other; those that are known already are not run again."""
    usual: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
        tree = Path(folder) / "tree"
        hidden = shutil.ignore_patterns(".*", "__pycache__", "runs", "shared", "build", "dist")
        shutil.copytree(ROOT, tree, ignore=hidden)
        for mutant in mutants:
            if mutant.key in known:
                yield replace(known[mutant.key], line=mutant.line)
                continue
            group = groups[mutant.group]
            if mutant.group not in usual:
                outcome, usual[mutant.group] = run_tests(tree, group, None)
                if outcome != "passed":
                    raise SystemExit(f"the tests of {mutant.group} fail without any change: mend them first")
            file = tree / mutant.file
            source = file.read_bytes()
            write(file, mutated(source, mutant))
            outcome, seconds = run_tests(tree, group, 60 + 3 * usual[mutant.group], file.stem)
            write(file, source)
            outcome = {"passed": "survived", "failed": "killed"}.get(outcome, outcome)
            yield replace(mutant, outcome=outcome, seconds=round(seconds, 1))


def shown(mutant: Mutant) -> tuple[str, str]:
    """The line before and after the change, as Markdown code."""
    source = (ROOT / mutant.file).read_bytes()
    lines = []
    for text in (source, mutated(source, mutant)):
        line = text.decode().splitlines()[mutant.line - 1].strip()
        lines.append("`" + line.replace("|", "\\|") + "`")
    return lines[0], lines[1]


def table(mutants: list[Mutant]) -> str:
    """A Markdown table of all mutants, below the shares that were killed."""
    lines = ["| group | killed | of | share |", "|---|---|---|---|"]
    for group in [*dict.fromkeys(m.group for m in mutants), "all"]:
        counted = [m for m in mutants if group in (m.group, "all") and not m.note]
        killed = sum(m.outcome != "survived" for m in counted)
        lines.append(f"| {group} | {killed} | {len(counted)} | {100 * killed / max(len(counted), 1):.0f} % |")
    lines += ["", "| file | line | before | after | outcome |", "|---|---|---|---|---|"]
    for mutant in mutants:
        before, after = shown(mutant)
        outcome = mutant.outcome + (f" (equivalent: {mutant.note})" if mutant.note else "")
        lines.append(f"| {Path(mutant.file).relative_to(PACKAGE)} | {mutant.line} | {before} | {after} | {outcome} |")
    return "\n".join(lines) + "\n"


def read_results(path: Path) -> dict[Any, Mutant]:
    """What an earlier run found, by the mutants' keys."""
    rows = json.loads(path.read_text(encoding="utf-8"))["mutants"] if path.is_file() else []
    return {mutant.key: mutant for mutant in (Mutant(**row) for row in rows)}


def write_results(path: Path, seed: int, mutants: list[Mutant]) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(
        json.dumps({"seed": seed, "mutants": [asdict(m) for m in mutants]}, indent=1) + "\n", encoding="utf-8"
    )
    partial.replace(path)


def main() -> None:
    """Draw, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=60, help="mutants to draw, of all groups together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--out", type=Path, default=Path("runs/mutants"), help="folder of mutants.json and mutants.md")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    options = parser.parse_args()
    groups = {name: GROUPS[name] for name in options.groups}
    mutants = draw(options.count, options.seed, groups)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.file}:{mutant.line}", *shown(mutant), sep="  ")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "mutants.json"
    known = read_results(results)
    done: list[Mutant] = []
    for mutant in judge(mutants, known, groups):
        done.append(mutant)
        late = [known[m.key] for m in mutants[len(done) :] if m.key in known]
        write_results(results, options.seed, [*done, *late])
        before, after = shown(mutant)
        print(
            f"{len(done)}/{len(mutants)} {mutant.outcome:8} {mutant.file}:{mutant.line}  {before} → {after}", flush=True
        )
    (options.out / "mutants.md").write_text(table(done), encoding="utf-8")
    print(table(done).split("\n\n")[0])


if __name__ == "__main__":
    main()
