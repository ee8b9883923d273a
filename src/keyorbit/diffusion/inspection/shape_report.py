"""The OLD (text rows only) versus NEW (learnable rows behind them) report of a model, from its configuration alone."""

from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from keyorbit.diffusion.choices import INSPECT_FORMAT
from keyorbit.diffusion.inspection.architectures import load_architecture
from keyorbit.diffusion.inspection.claims import Claim, judge
from keyorbit.diffusion.inspection.drift import Drift
from keyorbit.diffusion.inspection.observe import Observation, Run, observe
from keyorbit.diffusion.inspection.tilings import GridAnalysis, analyse_grid
from keyorbit.diffusion.inspection.variants import Cost
from keyorbit.errors import InputError, memory_shortage


@dataclass(frozen=True)
class Memory:
    """Numbers of values over all cross-attention layers and passes, batch 1."""

    keys_values_old: int
    keys_values_new: int
    all_columns: int
    token_columns: int
    token_columns_head_mean: int
    record: int


@dataclass(frozen=True)
class ShapeReport:
    """Everything that ``keyorbit inspect`` tells; ``costs`` and ``drift`` only where they were asked for."""

    observation: Observation
    grid: GridAnalysis
    memory: Memory
    costs: tuple[Cost, ...] = ()
    drift: tuple[Drift, ...] = ()

    @property
    def claims(self) -> list[Claim]:
        """The shape analysis' claims, judged by what was seen."""
        return judge(self.observation, self.grid.tilings, self.memory.all_columns, self.costs, self.drift)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; the keys are stable within one ``format``."""
        seen, model = self.observation, self.observation.architecture
        return {
            "format": INSPECT_FORMAT,
            "model": model.name,
            "tokens": seen.tokens,
            "text_tokens": model.text_tokens,
            "parameters": seen.parameters,
            "prediction_type": model.prediction_type,
            "text_embeddings": {"old": seen.text_embeddings, "new": seen.appended.context},
            "latents": seen.bare.latents,
            "layers": [_layer(*rows) for rows in zip(seen.bare.layers, seen.appended.layers, strict=True)],
            "grid": _grid(self.grid),
            "memory_bytes": {
                name: {"float32": 4 * count, "float16": 2 * count} for name, count in vars(self.memory).items()
            },
            "flops": {
                way: {"unet": run.flops, "cross_attention": run.cross_attention_flops}
                for way, run in _runs(seen).items()
            },
            "claims": [vars(claim) for claim in self.claims],
            "measured": [_cost(cost, self.costs[0]) for cost in self.costs],
            "drift": [vars(drift) for drift in self.drift],
        }


def inspect_model(model: str | Path, tokens: int = 16, layout: str | None = None) -> ShapeReport:
    """Observe a model on the meta device: seconds, and no weights.

    ``layout``: rows x columns of its views, such as ``2x3``; by default the model's own.

    Raises:
        InputError: the model or its configuration cannot be read, or ``tokens`` is below 1.
    """
    if tokens < 1:
        raise InputError(f"the number of tokens must be 1 or more, not {tokens}")
    architecture = load_architecture(model, layout)
    try:
        seen = observe(architecture, tokens)
        grid = analyse_grid(architecture.layout, seen.bare.latents["grid"], [x.size for x in seen.bare.of("grid")])
    except InputError:
        raise
    except Exception as error:  # whatever the libraries meet in sizes that do not fit each other
        if memory_shortage(error):
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"the configurations of {model} describe no model that can be run: {why}") from error
    return ShapeReport(seen, grid, _memory(seen))


def with_measurements(report: ShapeReport, costs: tuple[Cost, ...] = (), drift: tuple[Drift, ...] = ()) -> ShapeReport:
    """The report with what was measured on real runs."""
    return replace(report, costs=costs, drift=drift)


def _memory(seen: Observation) -> Memory:
    def rows(run: Run) -> int:
        return sum(prod(layer.key) + prod(layer.value) for layer in run.layers)

    columns = [layer.token_logits for layer in seen.isolated.recorded]
    return Memory(
        rows(seen.bare),
        rows(seen.appended),
        sum(prod(layer.probabilities) for layer in seen.appended.layers),
        sum(prod(shape) for shape in columns),
        sum(prod(shape) // shape[1] for shape in columns),
        sum(layer.held for layer in seen.isolated.recorded),
    )


def _runs(seen: Observation) -> dict[str, Run]:
    return {"bare": seen.bare, "appended": seen.appended, "isolated": seen.isolated, "joint": seen.joint}


def _layer(old: Any, new: Any) -> dict[str, Any]:
    parts = ("query", "key", "value", "probabilities")
    return {
        "name": old.name,
        "pass": old.unet_pass,
        "size": old.size,
        "heads": old.heads,
        "head_width": old.head_width,
        "old": {part: getattr(old, part) for part in parts},
        "new": {part: getattr(new, part) for part in parts},
        "moved_by_tokens": sorted(new.moved),
    }


def _grid(grid: GridAnalysis) -> dict[str, Any]:
    return {
        "latent": grid.latent,
        "layout": [grid.layout.rows, grid.layout.cols],
        "view": grid.view,
        "tilings": [
            {"rows": t.layout.rows, "cols": t.layout.cols, "view": t.view, "square": t.square} for t in grid.tilings
        ],
        "view_sizes": [{"size": size, "view": view} for size, view in grid.view_sizes.items()],
        "misplaced_by_transposed_reading": grid.misplaced,
    }


def _cost(cost: Cost, bare: Cost) -> dict[str, Any]:
    return {**vars(cost), "median": cost.median, "slower_than_bare": cost.slower_than(bare)}
