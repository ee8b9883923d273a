"""What recording attention costs at full size: ``python benchmarks/full_size.py [--model NAME] [--repeats N]``.

Both passes of the 866-million-parameter UNet of Zero123++ with random weights, batch 1, fp32, on the CPU. Peak memory
is that of a process for each way; times are interleaved. Needs about 12 GB of memory and a quiet machine. ``stored``
and ``unfused`` are the first attempt's way: all 93 columns of every cross-attention layer kept.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from keyorbit.diffusion.inspection.cost import Subject, measure
from keyorbit.diffusion.inspection.variants import MEANING, VARIANTS, Cost

GOALS = {"time": 1.03, "memory": 1.05}


def table(costs: list[Cost]) -> str:
    """The costs as a Markdown table, each beside its ratio to bare."""
    bare = costs[0]
    lines = ["| way | seconds (median) | × bare | peak GB | × bare | what it does |", "|---|---|---|---|---|---|"]
    for cost in costs:
        peak = share = "–"
        if cost.peak_bytes and bare.peak_bytes:
            peak, share = f"{cost.peak_bytes / 1e9:.3f}", f"{cost.peak_bytes / bare.peak_bytes:.3f}"
        cells = (cost.variant, f"{cost.median:.2f}", f"{cost.slower_than(bare):.3f}", peak, share)
        lines.append("| " + " | ".join((*cells, MEANING[cost.variant])) + " |")
    return "\n".join(lines)


def verdict(costs: list[Cost]) -> str:
    """Whether isolated capture keeps to its goals."""
    bare, isolated = costs[0], costs[1]
    slower = isolated.slower_than(bare)
    words = [f"time {slower:.3f} (goal {GOALS['time']}): {'met' if slower <= GOALS['time'] else 'missed'}"]
    if isolated.peak_bytes and bare.peak_bytes:
        more = isolated.peak_bytes / bare.peak_bytes
        words.append(f"memory {more:.3f} (goal {GOALS['memory']}): {'met' if more <= GOALS['memory'] else 'missed'}")
    return "isolated against bare: " + "; ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="zero123plus-v1.2", help="an architecture; 'tiny' for a smoke test")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ways", nargs="+", default=VARIANTS, choices=VARIANTS[1:], metavar="WAY")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    ways = ("bare", "isolated", *(way for way in args.ways if way not in ("bare", "isolated")))
    subject = Subject(args.model, args.tokens, random=True)
    costs = measure(subject, ways, args.repeats, lambda stage, i, n: print(f"{i}/{n} {stage}", flush=True))
    print(f"\n{args.model}, {args.tokens} tokens, {torch.get_num_threads()} threads, {args.repeats} rounds\n")
    print(table(costs), verdict(costs), sep="\n\n")
    if args.json:
        args.json.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
