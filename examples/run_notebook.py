"""Run a notebook from top to bottom and keep what its cells give, in place: ``make notebook``.

python examples/run_notebook.py examples/quickstart.ipynb

Without Jupyter, and so without times, kernels and paths: the same weights give the same file. It knows what our
notebook uses: printed text, a last expression's value, matplotlib's figures. What goes to stderr is not kept. Files are
written to a folder that is removed.
"""

import ast
import base64
import io
import json
import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

# Wide enough for a page of documentation, and small enough for a repository.
WIDEST = 1200


def run_cell(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """What a cell gives, as a notebook has it; ``names`` are changed by it."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) and not source.rstrip().endswith(";") else None
    text, value = io.StringIO(), None
    with redirect_stdout(text):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    shown = [plt.figure(number) for number in plt.get_fignums()]
    if isinstance(value, Figure):
        shown.append(value)
    outputs: list[dict[str, Any]] = []
    if text.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": text.getvalue().splitlines(keepends=True)})
    for figure in shown:
        outputs.append({"data": {"image/png": picture(figure)}, "metadata": {}, "output_type": "display_data"})
    if value is not None and not isinstance(value, Figure):
        outputs.append({"data": {"text/plain": [repr(value)]}, "metadata": {}, "output_type": "display_data"})
    plt.close("all")
    return outputs


def picture(figure: Figure) -> str:
    """A figure as PNG in base64; without the program's version, which would change the file."""
    data = io.BytesIO()
    dpi = min(100.0, WIDEST / figure.get_figwidth())
    figure.savefig(data, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return base64.b64encode(data.getvalue()).decode()


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run a notebook's cells in one namespace, which comes back; what they give is put into ``notebook``."""
    names: dict[str, Any] = {}
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, 1):
        cell["outputs"], cell["execution_count"] = run_cell("".join(cell["source"]), names), number
    return names


def main(path: Path) -> None:
    matplotlib.use("agg")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    with TemporaryDirectory() as folder, chdir(folder):
        run(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
