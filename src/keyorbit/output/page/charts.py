"""The losses over the steps, as lines of an SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from keyorbit.output.plotting import loss_terms, running_mean

# The terms of constellation_run.py and objective.py in discovery/, in words; others are shown by their names.
TERMS = {
    "total": "what is minimised: the weighted sum of the others",
    "misplaced": "negative log-likelihood of the tokens at their places, nats; flat heatmaps have 0",
    "unfit": "misfit of the tokens to their constellation, nats per token",
    "evidence": "evidence of the views at these places, nats per view",
    "geometric": "disagreement of the views about a point, squared sides",
    "spread": "variance of a heatmap, squared sides",
    "separation": "penalty of tokens nearer to each other than the margin",
    "silhouette": "distance of points from the object, sides",
    "on_object": "share of a heatmap outside the object",
    "sharpening": "difference from a Gaussian at the peak",
    "equivariance": "difference from the heatmaps of warped pictures",
}
_WIDTH, _HEIGHT, _MOST_POINTS = 300.0, 96.0, 240


@dataclass(frozen=True)
class Chart:
    """One term of the losses over the steps.

    Attributes:
        name: of the term.
        words: what it measures.
        raw: measured values, as points of an SVG polyline.
        mean: running mean, as points of an SVG polyline.
        first: first value of the running mean.
        last: last value of the running mean.
        steps: number of the last step.
    """

    name: str
    words: str
    raw: str
    mean: str
    first: str
    last: str
    steps: int


def charts(history: Sequence[dict[str, float]]) -> list[Chart]:
    """Make one chart of the losses for each term."""
    made = []
    for term in loss_terms(history):
        steps, values = [entry["step"] for entry in history], [entry[term] for entry in history]
        mean = running_mean(values)
        low, high = min(mean), max(mean)
        reach = (high - low) or abs(high) or 1.0
        low, high = low - 0.08 * reach, high + 0.08 * reach
        lines = [_line(steps, line, low, high) for line in (values, mean)]
        first, last = _short(mean[0]), _short(mean[-1])
        made.append(Chart(term, TERMS.get(term, ""), lines[0], lines[1], first, last, int(steps[-1])))
    return made


def _line(steps: Sequence[float], values: Sequence[float], low: float, high: float) -> str:
    every = max(1, len(steps) // _MOST_POINTS)
    kept = sorted({*range(0, len(steps), every), len(steps) - 1})
    span = max(1.0, steps[-1] - steps[0])
    points = []
    for i in kept:
        share = min(1.0, max(0.0, (values[i] - low) / (high - low)))
        points.append(f"{_WIDTH * (steps[i] - steps[0]) / span:.1f},{_HEIGHT * (1 - share):.1f}")
    return " ".join(points)


def _short(value: float) -> str:
    return f"{value:.3g}"
