"""Objects read from folders, tar shards and Parquet, on the disk and by fsspec: objects a second and memory.

    python benchmarks/data.py --objects 2000

Objects are procedural chairs of 64 pixels, of which 200 are made and copied under other names. Each way is read by a
process of its own, one after the other, from its list of objects to the tensors of the last one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keyorbit.cli.main import new_app
from keyorbit.synthetic.dataset import make_dataset
from keyorbit.synthetic.plan import DatasetSpec

MADE = 200
READING = """
import json, resource, sys, time
from pathlib import Path
from keyorbit.objects.dataset import read_source
from keyorbit.objects.sources import object_sources

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

began = time.monotonic()
sources = object_sources([Path(sys.argv[1])])
listed, held = time.monotonic() - began, []
for number, source in enumerate(sources):
    read_source(source)
    if number in (99, len(sources) - 1):
        held.append(memory())
rate = len(sources) / (time.monotonic() - began - listed)
print(json.dumps({"objects": len(sources), "listed": listed, "rate": rate, "held": held}))
"""


def prepare(folder: Path, objects: int) -> None:
    """Make the objects, and pack them."""
    made = make_dataset(folder / "made", DatasetSpec("chair", min(MADE, objects), seed=0, size=64))
    for number in range(objects):
        shutil.copytree(made[number % len(made)], folder / "objects" / f"chair_{number:06d}")
    for kind in ("tar", "parquet"):
        began = time.monotonic()
        words = ["dataset", "pack", str(folder / "objects"), "--out", str(folder / kind), "--format", kind]
        new_app()(words, standalone_mode=False)
        print(f"packed as {kind} in {time.monotonic() - began:.1f} s")
    shutil.copytree(folder / "tar", folder / "bare", ignore=shutil.ignore_patterns("*.idx"))


def row(what: str, address: str, place: Path) -> str:
    """Read all objects at an address; a row of the table."""
    words = [sys.executable, "-c", READING, address]
    found = json.loads(subprocess.run(words, capture_output=True, check=True, text=True, encoding="utf-8").stdout)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) / 1e6
    first, last = found["held"]
    count = sum(1 for path in place.rglob("*") if path.is_file())
    return (
        f"| {what} | {count:,} | {size:,.0f} MB | {found['listed']:.2f} s | {found['rate']:.0f} | "
        f"{first:.0f} to {last:.0f} MiB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=2000, help="how many")
    objects = parser.parse_args().objects
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, objects)
        print("| read from | files | size | listed in | objects/s | memory after 100 and after all |")
        print("|---|---|---|---|---|---|")
        print(row("folders", str(folder / "objects"), folder / "objects"))
        print(row("tar", str(folder / "tar"), folder / "tar"))
        print(row("tar without its index", str(folder / "bare"), folder / "bare"))
        print(row("Parquet", str(folder / "parquet"), folder / "parquet"))
        print(row("tar by fsspec (`file://`)", f"file://{folder / 'tar'}", folder / "tar"))
        print(row("Parquet by fsspec (`file://`)", f"file://{folder / 'parquet'}", folder / "parquet"))


if __name__ == "__main__":
    main()
