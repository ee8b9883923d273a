"""Whether detection without a run takes the right kind: ``python benchmarks/kinds.py``.

Objects that the shipped tokens were not found on (``keyorbit dataset make``, seed 2; the tokens are of seed 1), of the
kinds that ship and of others, from one picture (*generated*) and from their own views (*true*). An object is *right*
where its kind's tokens were taken, and *known* where these say that they know it (0.8 and more). Of other kinds, no
tokens are right, and *known* are mistakes. What was done is kept in ``--work``, so that a stopped run goes on.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

import keyorbit as ko
from keyorbit.detection.confidence import SURE
from keyorbit.detection.kinds import KindDetector
from keyorbit.diffusion.choices import SHIPPED_KINDS
from keyorbit.diffusion.paths import shipped_tokens
from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.samples import SampleSpec, as_object, make_sample

OTHERS = ("table", "lamp", "mug", "person")
WAYS = ("generated", "true")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/kinds"))
    parser.add_argument("--objects", type=int, default=20, help="of each kind")
    parser.add_argument("--others", type=int, default=5, help="of each kind that does not ship")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    file = args.work / "kinds.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    done = {(row["way"], row["kind"], row["number"]) for row in rows}
    detector = KindDetector(ko.load_backend("tiny"), {k: ko.Tokens.load(shipped_tokens(k)) for k in SHIPPED_KINDS})
    counts = dict.fromkeys(SHIPPED_KINDS, args.objects) | dict.fromkeys(OTHERS, args.others)
    for number in range(args.objects):
        for way in WAYS:
            for kind, count in counts.items():
                if number < count and (way, kind, number) not in done:
                    row = {"way": way, "kind": kind, "number": number, "kinds": seen(detector, kind, number, way)}
                    with file.open("a", encoding="utf-8") as out:
                        out.write(json.dumps(row) + "\n")
                    rows.append(row)
    Console().print(table_of(rows))


def seen(detector: KindDetector, kind: str, number: int, way: str) -> list:
    """The kinds, the likeliest first, with their probabilities."""
    thing = as_object(make_sample(SampleSpec(kind, 2 * MAX_OBJECTS + number)))
    if way == "generated":
        thing = replace(thing, views=None, masks=None, cameras=None, truth=None)
    return [list(one) for one in detector.detect_object(thing).kinds]


def table_of(rows: list) -> Table:
    table = Table("kind", "way", "objects", "right, %", "right of known, %", "known, %")
    for kind in (*SHIPPED_KINDS, *OTHERS):
        for way in WAYS:
            mine = [row["kinds"][0] for row in rows if (row["kind"], row["way"]) == (kind, way)]
            if not mine:
                continue
            sure = [one for one in mine if one[1] >= SURE]
            right = [one[0] == kind for one in mine], [one[0] == kind for one in sure]
            shares = [f"{100 * sum(x) / len(x):.0f}" if x and kind in SHIPPED_KINDS else "–" for x in right]
            table.add_row(kind, way, str(len(mine)), *shares, f"{100 * len(sure) / len(mine):.0f}")
    return table


if __name__ == "__main__":
    main()
