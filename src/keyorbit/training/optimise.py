"""A training loop that can stop at any step, under Accelerate: AdamW, warm-up, cool-down, average, checkpoints."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from keyorbit.errors import InputError
from keyorbit.ranks import named_failure
from keyorbit.training.state import TrainingState

log = logging.getLogger(__name__)
Watch = Callable[[int], None]
Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class OptimiseConfig:
    """How one stage is trained.

    The rate rises over ``warmup`` steps, stays, and falls to a twentieth over the last ``cooldown`` share of the
    steps: a plan can be made longer until the cool-down begins. ``average`` is the decay of the weights' average.
    rates: of modules that have another rate; starts: the first step of modules that are left alone before, and whose
    rate rises from there. keep: earlier checkpoints that stay. watch_every: None is ``save_every``.
    """

    steps: int
    rate: float
    warmup: int = 200
    cooldown: float = 0.2
    average: float = 0.999
    save_every: int = 250
    log_every: int = 25
    rates: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, int] = field(default_factory=dict)
    keep: int = 0
    watch_every: int | None = None

    def rate_at(self, step: int, module: str = "") -> float:
        """The learning rate of that step, 0 before the module's start."""
        start = self.starts.get(module, 0)
        if step < start:
            return 0.0
        rise = min(1.0, (step - start + 1) / max(1, self.warmup))
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.rates.get(module, self.rate) * rise * max(0.05, min(1.0, left))


@dataclass(frozen=True)
class Draw:
    """The share of a step that one backward pass computes: ``part`` of ``parts``, over processes and accumulation."""

    seed: int
    step: int
    part: int = 0
    parts: int = 1

    def generator(self) -> torch.Generator:
        """Of all random numbers of the step; the same for every part."""
        return torch.Generator().manual_seed(self.seed * 10**7 + self.step)

    def samples(self, batch: int) -> range:
        """Numbers of this part's samples, counted over the whole run: the same whatever the parts are."""
        first = (self.step * self.parts + self.part) * batch
        return range(first, first + batch)


@dataclass(frozen=True)
class Stage:
    """Which training it is, and where its state is kept.

    Attributes:
        name: of the checkpoint ``out/{name}.safetensors`` and of the lines in ``out/log.jsonl``.
        out: folder of the run.
        seed: default 0. All random numbers of a step come from it and from the number of the step.
        settings: written into the checkpoint. A checkpoint with other settings is refused. Default None: not compared.
        until: ``time.monotonic()`` at which to save and stop, for a single process. Default: never.
    """

    name: str
    out: Path
    seed: int = 0
    settings: Mapping[str, Any] | None = None
    until: float = math.inf

    @property
    def checkpoint(self) -> Path:
        """The file that holds the state."""
        return self.out / f"{self.name}.safetensors"


def optimise(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    loss_of: Callable[[Draw], dict[str, Tensor]],
    config: OptimiseConfig,
    accelerator: Accelerator,
    watch: Watch | None = None,
    report: Report | None = None,
) -> bool:
    """Train ``modules`` on ``loss_of(draw)["loss"]``, from ``out/{name}.safetensors`` on if that exists.

    What is trained are the parameters that require a gradient at the call. Every random number of step n has to come
    from the draw's seed and step: a run that was stopped ends as one that was not (bit-identical on a CPU). A step is
    the mean over the accelerator's accumulation steps and processes. Leaves the averaged weights in the modules.

    Args:
        until: ``time.monotonic()`` at which to stop, saved; for a single process.
        watch: called with the step every ``watch_every`` steps, with the averaged weights in the modules.
        report: called as ``report(done, steps, terms)`` after each step, with this process's own terms.
        settings: kept in the checkpoint; one of others is refused.

    Returns:
        Whether all steps are done.

    Raises:
        InputError: a checkpoint of other settings or weights, or a loss that is not finite (nothing is saved then).
    """
    state = TrainingState(modules, config.average, config.rate, accelerator)
    step = state.restore(stage.checkpoint, stage.settings)
    began, first, losses = time.monotonic(), step, list[dict[str, Tensor]]()
    main = accelerator.is_main_process
    while step < config.steps and time.monotonic() < stage.until:
        state.set_rates({module: config.rate_at(step, module) for module in modules})
        losses.append(_step(state, loss_of, stage.seed, step))
        step += 1
        ending = step == config.steps
        if report is not None and main:
            report(step, config.steps, {key: float(value) for key, value in losses[-1].items()})
        due = step % config.log_every == 0 or ending, step % config.save_every == 0 or ending
        if any(due):
            means = _means(losses, accelerator, step)
        if due[0]:
            if main:
                pace = (time.monotonic() - began) / (step - first)
                log.info("%s %d/%d %s %.2f s/step", stage.name, step, config.steps, json.dumps(means), pace)
                append_line(stage.out / "log.jsonl", {"stage": stage.name, "step": step, **means})
            accelerator.log(means, step=step)
            losses = []
        if due[1]:
            state.save(stage.checkpoint, step, stage.settings, config.keep)
        if watch is not None and (step % (config.watch_every or config.save_every) == 0 or ending):
            with state.averaged():
                watch(step)
    if step > first and step < config.steps:
        state.save(stage.checkpoint, step, stage.settings, config.keep)
    state.use_average()
    return step >= config.steps


@contextmanager
def learning(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Within the ``with`` block all parameters learn, in training mode; behind it none do, in evaluation mode."""
    for module in modules.values():
        module.requires_grad_(True).train()
    try:
        yield
    finally:
        for module in modules.values():
            module.requires_grad_(False).eval()


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """One JSON object as a line of a log."""
    with open(path, "a") as file:
        file.write(json.dumps(values) + "\n")


def _step(
    state: TrainingState, loss_of: Callable[[Draw], dict[str, Tensor]], seed: int, step: int
) -> dict[str, Tensor]:
    """One step of the optimizer; the terms' means over this process's parts."""
    accelerator = state.accelerator
    count, found = accelerator.gradient_accumulation_steps, list[dict[str, Tensor]]()
    state.optimizer.zero_grad(set_to_none=True)
    for i in range(count):
        draw = Draw(seed, step, accelerator.process_index * count + i, accelerator.num_processes * count)
        with accelerator.autocast():
            terms = loss_of(draw)
        accelerator.backward(terms["loss"])  # divides by the accumulation steps
        found.append({key: value.detach() for key, value in terms.items()})
    state.update(step)
    return {key: torch.stack([terms[key].float() for terms in found]).mean() for key in found[0]}


def _means(losses: Sequence[Mapping[str, Tensor]], accelerator: Accelerator, step: int) -> dict[str, float]:
    """Means over steps and processes; a term counts in the steps in which there was one."""
    keys = sorted({key for entry in losses for key in entry})
    local = torch.stack([torch.stack([entry[key] for entry in losses if key in entry]).mean() for key in keys])
    with named_failure():
        means = dict(zip(keys, accelerator.reduce(local, "mean").tolist(), strict=True))
    if not all(math.isfinite(value) for value in means.values()):
        broken = ", ".join(key for key, value in means.items() if not math.isfinite(value))
        raise InputError(f"the loss is no number any more by step {step} ({broken}): lower the rate or the weights")
    return means
