"""The documentation's figures, computed: ``python benchmarks/figures_of_docs.py docs/figures.json``.

The cheap ones follow from shapes and files: the tests compare them with the file and with the pages at every run. The
slow ones (drift of the views, losses against loops, the minutes of the demo) are measured only here; the tests look
that the pages have what the file says.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import keyorbit as ko
from keyorbit.diffusion.inspection.shape_report import inspect_model
from keyorbit.diffusion.layers import cross_attention_layers

Texts = dict[str, list[str]]
ROOT = Path(__file__).parents[1]
PICTURE = "src/keyorbit/assets/examples/chair_2_00000/cond.png"
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def cheap() -> Texts:
    """What each page says, with the numbers as they are now."""
    tiny = ko.load_backend("tiny", "cpu")
    layers = NUMBERS[len(cross_attention_layers(tiny.unet))]
    size = sum(path.stat().st_size for path in Path(str(files("keyorbit") / "assets/tiny")).rglob("*.safetensors"))
    report = inspect_model("zero123plus-v1.2").to_dict()
    old, new = (report["text_embeddings"][which][1] for which in ("old", "new"))
    work, memory = report["flops"], report["memory_bytes"]
    more = 100 * (work["appended"]["unet"] / work["bare"]["unet"] - 1)
    columns = ("all_columns", "token_columns", "token_columns_head_mean")
    whole, own, mean = (f"{memory[name]['float32'] / 1e6:.0f} MB" for name in columns)
    return {
        "research-log.md": [f"one token is the query for {layers} layers at once"],
        "quickstart.md": [f"a tiny Zero123++ ({size / 1e6:.0f} MB, trained on procedural objects)"],
        "shape-analysis.md": [
            f"text embeddings {old} → {new} rows, +{100 * (new - old) / old:.1f} %",
            f"{100 * report['grid']['misplaced_by_transposed_reading']:.0f} % of the positions land in another view",
            f"the 16 rows add {more:.2f} % to the UNet's arithmetic",
            f"takes {whole} a step (fp32), the tokens' columns {own}, averaged over heads {mean}",
        ],
    }


def drift() -> list[str]:
    """Rows of the table of docs/benchmarks.md."""
    command = ["inspect", "--model", "tiny", "--device", "cpu", "--drift", "--picture", PICTURE, "--json"]
    return drift_rows(_json_of([sys.executable, "-m", "keyorbit", "-q", *command])["drift"])


def drift_rows(found: Sequence[dict[str, Any]]) -> list[str]:
    """What ``keyorbit inspect --drift --json`` measured, as rows of a table."""
    return [
        f"| {row['tokens']} | × {row['norm']:g} | {min(row['psnr']):.1f} – {max(row['psnr']):.1f} | "
        f"{max(row['largest']):.2f} |"
        for row in found
    ]


def losses() -> list[str]:
    """The same of the losses without loops: the smallest and the largest ratio of five runs."""
    command = [sys.executable, "benchmarks/discovery.py", "--sections", "losses", "--json"]
    ratios = sorted(_json_of(command)["losses"][0]["ratio"] for _ in range(5))
    return [f"{ratios[0]:.0f} to {ratios[-1]:.0f} times"]


def demo() -> list[str]:
    """Minutes of ``make demo`` on this machine, when it does nothing else."""
    began = time.monotonic()
    subprocess.run(["sh", "examples/demo.sh", "build/demo"], cwd=ROOT, check=True)
    return [f"{(time.monotonic() - began) / 60:.0f} minutes"]


SLOW: dict[str, Callable[[], list[str]]] = {"drift": drift, "losses": losses, "demo": demo}


def _json_of(command: Sequence[str]) -> dict[str, Any]:
    path = ROOT / "build" / "figure.json"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    subprocess.run([*command, str(path)], cwd=ROOT, check=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Write the file; what is not measured now stays as it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", choices=SLOW, default=list(SLOW), help="slow figures; default all")
    given = parser.parse_args()
    kept = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    kept["cheap"] = cheap()
    for name in given.only:
        kept[name] = SLOW[name]()
    given.out.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
