"""The input picture's camera by its true elevation: ``python benchmarks/input_camera.py``.

Chairs that the shipped example tokens were not found on, in bands of elevation: how far the elevation is off, and how
far true landmarks are from where 3D landmarks land that are drawn onto the picture with the camera that was found.
"""

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import keyorbit as ko
from keyorbit.evaluation.evaluate import detect_all
from quality import split

BANDS = ((-20, 0), (0, 20), (20, 40), (40, 60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, help="default: the example tokens that ship, of chairs")
    parser.add_argument("--category", default="chair")
    parser.add_argument("--objects", type=int, default=80)
    parser.add_argument("--fit", type=int, default=40)
    parser.add_argument("--model", default="tiny")
    args = parser.parse_args()
    backend = ko.load_backend(args.model)
    shipped = files("keyorbit") / "assets" / "examples" / "tokens.safetensors"
    detector = ko.KeypointDetector(backend, ko.Tokens.load(args.tokens or Path(str(shipped))))
    train, things = (
        split(args.category, name, count, backend.view_size, 1)
        for name, count in (("train", args.fit), ("validation", args.objects))
    )
    fitted, found = detect_all(detector, train), detect_all(detector, things)
    elevations = [thing.input_elevation_deg for thing in things]
    cameras = [detection.input_camera for detection in found]
    off = np.array([abs(float(c.elevation_deg) - e) for c, e in zip(cameras, elevations, strict=True)])
    inside = off <= [float(c.elevation_std_deg) for c in cameras]
    table = Table(
        "elevation", "objects", "error, ° (median)", "9 of 10 below, °", "within one σ", "landmarks, % of side"
    )
    for low, high in (*BANDS, (BANDS[0][0], BANDS[-1][1])):
        chosen = [i for i, e in enumerate(elevations) if low <= e <= high]
        if chosen:
            some = [found[i] for i in chosen], [things[i] for i in chosen]
            drawn = ko.evaluate(*some, fitted, train).input.landmark_2d
            middle, most = np.median(off[chosen]), np.quantile(off[chosen], 0.9)
            drawn_text = "" if drawn is None else f"{100 * drawn:.1f}"
            share = f"{np.mean(inside[chosen]):.2f}"
            table.add_row(f"{low}° to {high}°", str(len(chosen)), f"{middle:.1f}", f"{most:.1f}", share, drawn_text)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
