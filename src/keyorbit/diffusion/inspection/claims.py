"""The claims of the shape analysis, each judged by what was observed on a model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

from keyorbit.diffusion.captured import Pass
from keyorbit.diffusion.inspection.drift import Drift
from keyorbit.diffusion.inspection.observe import Observation, Run
from keyorbit.diffusion.inspection.tilings import Tiling
from keyorbit.diffusion.inspection.variants import Cost

Verdict = Literal["confirmed", "refuted", "depends"]
# What the shape analysis says.
GROWTH = 0.208
HEADS = {4096: 5, 1024: 10, 256: 20, 64: 20}
GRID_POSITIONS = 9600
GRID = ((2, 3), (40, 40))
SLOWDOWN = (0.05, 0.10)
# It gives no figure for "minimal"; a twentieth of the UNet's weights is taken as the line.
LITTLE = 0.05


@dataclass(frozen=True)
class Claim:
    """A claim, what became of it for this model, and the number behind that."""

    claim: str
    verdict: Verdict
    number: str


def judge(
    seen: Observation,
    tilings: Sequence[Tiling],
    stored_values: int,
    costs: Sequence[Cost] = (),
    drift: Sequence[Drift] = (),
) -> list[Claim]:
    """Every claim, in the order of the document.

    Args:
        seen: the observed runs.
        tilings: the ways to lay the views into the latent.
        stored_values: values of all attention maps of one step.
        costs: measured, bare first; without them the slowdown is judged by arithmetic only.
        drift: measured change of the generated views.
    """
    return [
        _growth(seen),
        _rows(seen),
        _queries(seen),
        _heads(seen),
        _positions(seen),
        _tiling(seen, tilings),
        _reachable(seen),
        _intact(seen),
        _interference(seen, drift),
        _slowdown(seen, costs),
        _memory(seen, stored_values),
    ]


def _growth(seen: Observation) -> Claim:
    old, new = seen.text_embeddings[1], seen.appended.context[1]
    growth = new / old - 1
    number = f"{list(seen.text_embeddings)} → {list(seen.appended.context)}: +{100 * growth:.1f} %"
    fits = round(growth, 3) == GROWTH
    return Claim("the text embeddings grow from 77 to 93 rows, +20.8 %", "confirmed" if fits else "depends", number)


def _rows(seen: Observation) -> Claim:
    def full(run: Run) -> int:
        rows = seen.appended.context[1]
        return sum(layer.key[1] == layer.value[1] == rows for layer in run.layers)

    total, joint, isolated = len(seen.appended.layers), full(seen.appended), full(seen.isolated)
    number = f"joint: in {joint} of {total} layers and passes; isolated: the image branch in {isolated}"
    return Claim("keys and values have 93 rows in every layer", _verdict(joint == total, isolated == total), number)


def _queries(seen: Observation) -> Claim:
    pairs = list(zip(seen.bare.layers, seen.appended.layers, strict=True))
    shapes = sum(old.query == new.query for old, new in pairs)
    joint, isolated = (_moved(run, "query") for run in (seen.appended, seen.isolated))
    number = (
        f"shapes equal in {shapes} of {len(pairs)}; values depend on the tokens in {joint} (joint), "
        f"in {isolated} (isolated)"
    )
    return Claim("queries are unchanged", _verdict(joint == 0, isolated == 0), number)


def _heads(seen: Observation) -> Claim:
    which: Pass = "condition" if seen.bare.of("condition") else "grid"
    found = {layer.query[1]: layer.heads for layer in seen.bare.of(which)}
    number = f"{which} pass: {_slashed(found.values())} heads at {_slashed(found)} positions"
    return Claim("5/10/20/20 heads at 4096/1024/256/64 positions", _yes(found == HEADS), number)


def _positions(seen: Observation) -> Claim:
    found = list(dict.fromkeys(layer.query[1] for layer in seen.bare.of("grid")))
    return Claim("9600 positions belong to the grid", _yes(found[0] == GRID_POSITIONS), f"grid pass: {_slashed(found)}")


def _tiling(seen: Observation, tilings: Sequence[Tiling]) -> Claim:
    height, width = seen.bare.latents["grid"][-2:]
    tried = [f"{t.layout.rows} × {t.layout.cols} → {_cut(t.view)}" for t in tilings]
    square = [t for t in tilings if t.square]
    fits = any(((t.layout.rows, t.layout.cols), t.view) == GRID for t in square)
    number = f"the latent is {height} high and {width} wide; rows × columns → view: {'; '.join(tried)}"
    return Claim("the grid is 80 × 120, two rows of three views of 40 × 40", _yes(fits), number)


def _reachable(seen: Observation) -> Claim:
    runs = [seen.isolated.recorded, seen.joint.recorded]
    reached = [sum(x.reaches_tokens and x.token_logits[-1] == seen.tokens for x in run) for run in runs]
    total = len(seen.bare.layers)
    number = f"{seen.tokens} columns with a gradient in {reached[0]} (isolated) and {reached[1]} (joint) of {total}"
    return Claim("tokens 77–92 can be reached in every layer", _yes(reached == [total, total]), number)


def _intact(seen: Observation) -> Claim:
    joint, isolated = (_moved(run, "probabilities") for run in (seen.appended, seen.isolated))
    rows = seen.text_embeddings[1]
    share = seen.tokens / (rows + seen.tokens)
    number = (
        f"the {rows} rows are the same; attention on them depends on the tokens in {joint} (joint) and {isolated} "
        f"(isolated) of {len(seen.bare.layers)}: where all logits are equal, joint takes {100 * share:.1f} % of it away"
    )
    return Claim("the 77 text tokens stay intact", _verdict(joint == 0, isolated == 0), number)


def _interference(seen: Observation, drift: Sequence[Drift]) -> Claim:
    number = (
        f"the UNet's output depends on the tokens: joint {_word(seen.appended.output_moved)}, "
        f"isolated {_word(seen.isolated.output_moved)}"
    )
    if drift:
        psnr = [decibels for one in drift for decibels in one.psnr]
        number += f"; measured: views in joint mode {min(psnr):.1f} to {max(psnr):.1f} dB from the original, "
        number += f"in isolated mode off by {max(one.isolated_max for one in drift):g}"
    holds = not seen.appended.output_moved, not seen.isolated.output_moved
    return Claim("the tokens do not interfere with the views", _verdict(*holds), number)


def _slowdown(seen: Observation, costs: Sequence[Cost]) -> Claim:
    added = seen.appended.flops / seen.bare.flops - 1
    number = f"the rows add {100 * added:.2f} % to the UNet's arithmetic"
    verdict: Verdict = "depends"
    if costs:
        bare, *others = costs
        ratios = {cost.variant: cost.slower_than(bare) - 1 for cost in others}
        number += "; measured: " + ", ".join(f"{name} {100 * ratio:+.1f} %" for name, ratio in ratios.items())
        inside = [SLOWDOWN[0] <= ratio <= SLOWDOWN[1] for ratio in ratios.values()]
        verdict = _verdict(*inside)
    else:
        number += "; the time is a matter of how the maps are kept: measure it"
    return Claim("a slowdown of 5–10 %", verdict, number)


def _memory(seen: Observation, stored_values: int) -> Claim:
    rows = len(seen.isolated.recorded)
    columns = sum(prod(x.token_logits) for x in seen.isolated.recorded)
    weights = seen.parameters["unet"]
    number = (
        f"all columns of {rows} layers and passes: {4e-6 * stored_values:.1f} MB in fp32, "
        f"{100 * stored_values / weights:.1f} % of the UNet's weights; the tokens' own {4e-6 * columns:.1f} MB"
    )
    verdict = _verdict(*(count <= LITTLE * weights for count in (stored_values, columns)))
    return Claim("little memory", verdict, number)


def _moved(run: Run, part: str) -> int:
    return sum(part in layer.moved for layer in run.layers)


def _yes(holds: bool) -> Verdict:
    return "confirmed" if holds else "refuted"


def _verdict(*holds: bool) -> Verdict:
    """Confirmed if it holds every way, refuted if in none."""
    if all(holds):
        return "confirmed"
    return "depends" if any(holds) else "refuted"


def _slashed(values: Iterable[int]) -> str:
    return "/".join(map(str, values))


def _cut(view: tuple[int, int] | None) -> str:
    return "does not divide" if view is None else f"{view[0]} × {view[1]}"


def _word(holds: bool) -> str:
    return "yes" if holds else "no"
