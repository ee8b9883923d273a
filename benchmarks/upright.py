"""How often the upward axis of a mesh is judged right by its shape: ``python benchmarks/upright.py MESHES``.

MESHES has a folder of glTF files for each kind. Their format tells the axis, y; it is judged without that, for each
mesh alone and for the kind's folder at once, of the meshes as they are and with z up (the front along −y, and along x).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from keyorbit.synthetic.meshes.files import read_mesh
from keyorbit.synthetic.meshes.parts import joined
from keyorbit.synthetic.meshes.upright import upward_axis, upward_evidence

# Axes of the file that the turned one has: y up as it is, z up with the front along −y, and along x.
TURNS = {
    "y": np.eye(3),
    "z, front −y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "z, front x": np.eye(3)[[2, 0, 1]],
}


def judged_right(evidence: Sequence[float]) -> list[bool]:
    """Whether the axis is right for each of the turns, by the evidence for y."""
    return [upward_axis(value) == name[0] for name, value in zip(TURNS, evidence, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("meshes", type=Path)
    args = parser.parse_args()
    table = Table("kind", "meshes", *(f"{name}: alone, %" for name in TURNS), "folders of the kind, of 3")
    alone, together = [], []
    for folder in sorted(path for path in args.meshes.iterdir() if path.is_dir()):
        evidence = []
        for file in sorted(folder.glob("*.gl*")):
            vertices, faces, _ = joined(read_mesh(file).parts)
            evidence.append([upward_evidence(vertices @ turn.T, faces) for turn in TURNS.values()])
        right = np.array(
            [[upward_axis(value) == name[0] for name, value in zip(TURNS, row, strict=True)] for row in evidence]
        )
        whole = [upward_axis(total) == name[0] for name, total in zip(TURNS, np.sum(evidence, 0), strict=True)]
        alone.append(right)
        together.append(whole)
        shares = [f"{100 * share:.0f}" for share in right.mean(0)]
        table.add_row(folder.name, str(len(right)), *shares, str(sum(whole)))
    everything = np.concatenate(alone)
    shares = [f"{100 * share:.1f}" for share in everything.mean(0)]
    table.add_row("all", str(len(everything)), *shares, f"{np.sum(together)} of {np.size(together)}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
