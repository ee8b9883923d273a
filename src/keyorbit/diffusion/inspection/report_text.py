"""The shape report as tables: Markdown, and the same on a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from keyorbit.diffusion.inspection.observe import LayerShapes
from keyorbit.diffusion.inspection.shape_report import ShapeReport
from keyorbit.diffusion.inspection.variants import MEANING

MEMORY = {
    "keys_values_old": "keys and values, OLD",
    "keys_values_new": "keys and values, NEW",
    "all_columns": "every column of every head and layer stored",
    "token_columns": "the tokens' columns of every head",
    "token_columns_head_mean": "the tokens' columns averaged over heads",
    "record": "all that one capture of every layer holds",
}
WAYS = {
    "bare": "OLD: text rows only",
    "appended": "NEW: tokens behind them, nothing recorded",
    "isolated": "isolated capture of every layer",
    "joint": "joint capture of every layer",
}


@dataclass(frozen=True)
class Section:
    """A titled table with a remark below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    remark: str = ""


def sections(report: ShapeReport) -> Iterator[Section]:
    """The report's tables, in reading order; the claims come last."""
    yield _summary(report)
    yield _layers(report)
    yield _grid(report)
    yield _memory(report)
    yield _flops(report)
    if report.costs:
        yield _costs(report)
    if report.drift:
        yield _drift(report)
    rows = tuple((claim.claim, claim.verdict, claim.number) for claim in report.claims)
    yield Section("The claims of the shape analysis, for this model", ("claim", "verdict", "number"), rows)


def markdown(report: ShapeReport) -> str:
    """The whole report; the same for the same model, unless something was measured."""
    lines = [f"# {_title(report)}"]
    for section in sections(report):
        rule = "|".join("---" for _ in section.header)
        lines += ["", f"## {section.title}", "", _line(section.header), f"|{rule}|"]
        lines += [_line(row) for row in section.rows]
        if section.remark:
            lines += ["", section.remark]
    return "\n".join(lines) + "\n"


def show(report: ShapeReport, console: Console) -> None:
    """Tables on a terminal; elsewhere the Markdown, which any program can read."""
    if not console.is_terminal:
        console.print(markdown(report), end="", markup=False, highlight=False, soft_wrap=True)
        return
    console.rule(_title(report))
    for section in sections(report):
        table = Table(*section.header, title=section.title, caption=section.remark or None, title_justify="left")
        for row in section.rows:
            table.add_row(*row)
        console.print(table)


def _title(report: ShapeReport) -> str:
    seen = report.observation
    return f"{seen.architecture.name}: {seen.architecture.text_tokens} text tokens OLD, {seen.tokens} more NEW"


def _summary(report: ShapeReport) -> Section:
    seen = report.observation
    old, new, isolated = seen.bare.layers[0], seen.appended.layers[0], seen.isolated.layers[0]
    rows = [
        ("text embeddings", *map(_shape, (seen.text_embeddings, seen.appended.context, seen.isolated.context))),
        ("keys, first layer", *map(_shape, (old.key, new.key, isolated.key))),
        ("values, first layer", *map(_shape, (old.value, new.value, isolated.value))),
        ("queries, first layer", *map(_shape, (old.query, new.query, isolated.query))),
        (
            "attention probabilities, first layer",
            *map(_shape, (old.probabilities, new.probabilities, isolated.probabilities)),
        ),
        ("UNet output", *map(_shape, (seen.bare.output, seen.appended.output, seen.isolated.output))),
        ("output depends on the tokens", "no", *map(_yes, (seen.appended.output_moved, seen.isolated.output_moved))),
    ]
    counts = ", ".join(f"{name} {count:,}" for name, count in seen.parameters.items())
    remark = (
        f"Seen while every part ran on the meta device; dependence by autograd's graph. Parameters: {counts}. "
        "In isolated mode the tokens' columns are computed beside the image branch, which keeps its text rows."
    )
    return Section("Shapes", ("", "OLD", "NEW, joint", "NEW, isolated: image branch"), tuple(rows), remark)


def _layers(report: ShapeReport) -> Section:
    seen = report.observation
    header = ("pass", "layer", "rows × columns", "heads × width", "queries", "keys = values", "probabilities")
    rows = tuple(_layer(*pair) for pair in zip(seen.bare.layers, seen.appended.layers, strict=True))
    return Section("Cross-attention layers, OLD → NEW (joint)", header, rows)


def _layer(old: LayerShapes, new: LayerShapes) -> tuple[str, ...]:
    keys = f"{_shape(old.key)} → {_shape(new.key)}"
    if (old.key, new.key) != (old.value, new.value):
        keys += f", values {_shape(old.value)} → {_shape(new.value)}"
    queries = _shape(old.query) if old.query == new.query else f"{_shape(old.query)} → {_shape(new.query)}"
    return (
        old.unet_pass,
        old.name,
        _by(old.size),
        f"{old.heads} × {old.head_width}",
        queries,
        keys,
        f"{_shape(old.probabilities)} → {_shape(new.probabilities)}",
    )


def _grid(report: ShapeReport) -> Section:
    grid = report.grid
    rows = []
    for tiling in grid.tilings:
        own = tiling.layout == grid.layout
        what = "does not divide" if tiling.view is None else "square views" if tiling.square else "views not square"
        view = "–" if tiling.view is None else _by(tiling.view)
        rows.append((_by((tiling.layout.rows, tiling.layout.cols)), view, what, "the model's layout" if own else ""))
    views = "; ".join(f"{_by(size)} → {_by(view) if view else 'no'}" for size, view in grid.view_sizes.items())
    flipped = _by((grid.layout.cols, grid.layout.rows))
    remark = (
        f"The latent is {grid.latent[0]} high and {grid.latent[1]} wide. Views in each feature map: {views}. "
        f"Reading the flattened map as {flipped} views puts {100 * grid.misplaced:.1f} % of the positions into "
        "another view."
    )
    return Section("Grid", ("rows × columns", "view", "", "layout"), tuple(rows), remark)


def _memory(report: ShapeReport) -> Section:
    rows = tuple(
        (MEMORY[name], f"{4 * count:,}", f"{2 * count:,}", f"{count / report.memory.all_columns:.3f}")
        for name, count in vars(report.memory).items()
    )
    remark = "Both passes of one step, batch 1. What a capture records is float32 whatever the model's type."
    return Section("Memory", ("", "bytes, fp32", "bytes, fp16", "of every column"), rows, remark)


def _flops(report: ShapeReport) -> Section:
    seen = report.observation
    rows = []
    for way, words in WAYS.items():
        run = getattr(seen, way)
        more = run.flops / seen.bare.flops - 1
        cross = run.cross_attention_flops
        rows.append((words, f"{cross / 1e9:,.2f}", f"{run.flops / 1e9:,.2f}", f"{100 * more:+.2f} %"))
    remark = "10⁹ floating-point operations, a multiplication and an addition being two; both passes of one step."
    return Section("Arithmetic", ("", "cross-attention", "whole UNet", "against OLD"), tuple(rows), remark)


def _costs(report: ShapeReport) -> Section:
    bare = report.costs[0]
    rows = []
    for cost in report.costs:
        peak = "–" if cost.peak_bytes is None else f"{cost.peak_bytes / 1e6:,.0f}"
        times = f"{cost.median:.3f}", f"{cost.slower_than(bare):.3f}"
        rows.append((cost.variant, *times, peak, MEANING[cost.variant]))
    remark = f"Medians of {len(bare.seconds)} interleaved rounds; peak memory of a process for each, weights included."
    return Section("Measured", ("", "seconds", "× bare", "peak MB", ""), tuple(rows), remark)


def _drift(report: ShapeReport) -> Section:
    rows = tuple(
        (
            str(one.tokens),
            f"× {one.norm:g}",
            ", ".join(f"{decibels:.1f}" for decibels in one.psnr),
            ", ".join(f"{change:.3f}" for change in one.largest),
            f"{one.isolated_max:g}" + (" (bit-identical)" if one.isolated_equal else ""),
        )
        for one in report.drift
    )
    header = ("tokens", "norm", "joint: dB for each view", "joint: largest change", "isolated: largest change")
    remark = "Generated views against those without tokens, same noise; values 0…1; norm against that of text rows."
    return Section("Drift of the generated views", header, rows, remark)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shape(shape: Iterable[int]) -> str:
    return f"[{' '.join(map(str, shape))}]"


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
