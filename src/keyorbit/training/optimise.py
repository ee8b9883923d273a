"""A training loop that can stop at any step, on Accelerate: AdamW, warm-up, cool-down, average, checkpoints."""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from keyorbit.errors import InputError
from keyorbit.ranks import named_failure
from keyorbit.storage.journal import Action, Journal
from keyorbit.training.schedule import OptimiseConfig
from keyorbit.training.state import Resumed, StepLosses, TrainingState

log = logging.getLogger(__name__)
Watch = Callable[[int], Action | None]
Report = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Draw:
    """The share of a step that one backward pass computes: one of ``parts``, over processes and accumulation.

    Attributes:
        seed: of the run.
        step: number of the step.
        part: number of this share. Default 0.
        parts: number of shares. Default 1.
    """

    seed: int
    step: int
    part: int = 0
    parts: int = 1

    def generator(self, device: torch.device | str = "cpu") -> torch.Generator:
        """Return the generator, on a device, of all random numbers of the step; it is the same for every part."""
        return torch.Generator(device).manual_seed((self.seed * 10**7 + self.step) % 2**63)

    def samples(self, batch: int) -> range:
        """Return the numbers of this part's samples, counted over the whole run, whatever the division into parts."""
        first = (self.step * self.parts + self.part) * batch
        return range(first, first + batch)


@dataclass(frozen=True)
class Stage:
    """A training run, and where its state is kept.

    Attributes:
        name: name of the checkpoint ``out/{name}.safetensors`` and of the lines in ``out/log.jsonl``.
        out: folder of the run.
        seed: all random numbers follow from it and from the number of the step. Default 0.
        settings: written into the checkpoint; a checkpoint with other settings, but for ``steps``, is refused. Default
            None: not compared.
        until: ``time.monotonic()`` at which to save and stop, for a single process. Default: never.
        begin: called in the first process before it writes its first file, with whether the run goes on to another
            number of steps than it had. Default: nothing is to be done before.
        resume: whether the checkpoint is resumed from, if there is one. Default True.
        watched: names, in the log, of the lines that ``watch`` writes. Default: none.
        again: how to go on from a checkpoint, for error messages.
        older: gives the values of settings that older versions wrote, by name. Default: none.
    """

    name: str
    out: Path
    seed: int = 0
    settings: Mapping[str, Any] | None = None
    until: float = math.inf
    begin: Callable[[bool], None] | None = None
    resume: bool = True
    watched: tuple[str, ...] = ()
    again: str = "--resume goes on from it, --overwrite begins anew"
    older: Mapping[str, Callable[[], Any]] = field(default_factory=dict)

    @property
    def checkpoint(self) -> Path:
        """The file that holds the state."""
        return self.out / f"{self.name}.safetensors"

    @property
    def log(self) -> Path:
        """The log, in which each line names the stage that it is of."""
        return self.out / "log.jsonl"


def optimise(
    stage: Stage,
    modules: Mapping[str, nn.Module],
    loss_of: Callable[[Draw], dict[str, Tensor]],
    config: OptimiseConfig,
    accelerator: Accelerator,
    watch: Watch | None = None,
    report: Report | None = None,
) -> bool:
    """Train ``modules`` on ``loss_of(draw)["loss"]``; resume from the stage's checkpoint if there is one.

    All parameters that require a gradient at the call are trained. A step is the mean over the accelerator's
    accumulation steps and processes. At the end the modules hold the averaged weights. A run that was stopped and
    resumed ends like one that was not (bit-identical on a CPU), if every random number of ``loss_of`` comes from the
    draw's seed and step.

    Args:
        stage: which run it is, and where its state is kept.
        modules: by name.
        loss_of: computes the terms of the loss, and their sum ``loss``.
        config: steps and learning rates.
        accelerator: processes, devices and precision.
        watch: called with the step every ``watch_every`` steps, with the averaged weights in the modules; it computes
            what there is to see, and returns what writes it, or None. That is written before the next checkpoint.
        report: called as ``report(done, steps, terms)`` after each step, with the means of the last line of the log.

    Nothing is written before the first checkpoint is due. Of a run that was stopped and resumed, the log and what
    ``watch`` wrote are those of one that was not.

    A loss is read, and so found to be not finite, when it is logged, watched or saved and not before: between these
    steps nobody waits for a GPU. Of a state that is not finite nothing is written.

    Returns:
        Whether all steps are done.

    Raises:
        InputError: the checkpoint has other settings or weights, or losses or weights are not finite.
    """
    state = TrainingState(modules, config.average, config.rate, accelerator)
    resumed = state.restore(stage.checkpoint, stage.settings, stage.older) if stage.resume else Resumed()
    step, losses = resumed.step, resumed.losses
    began, first, means = time.monotonic(), step, dict[str, float]()
    main = accelerator.is_main_process

    def begin() -> None:
        if stage.begin is not None:
            stage.begin(resumed.before is not None)
        if first:  # the process that wrote this checkpoint may not have come to it
            state.keep(stage.checkpoint, first, config.keep)

    journal = Journal(stage.log, step, begin, (stage.name, *stage.watched), stage.again, main)

    if resumed.before is not None:
        if main:
            how = f"rates and weights of losses are from here on those of a run of {config.steps} steps"
            log.warning("%s goes on to %d steps instead of %d: %s", stage.checkpoint, config.steps, resumed.before, how)
        journal.begin()  # the settings: whoever resumes it again need not say how long it has become

    def save() -> None:
        state.check(step, journal.kept)
        journal.begin()
        state.save(stage.checkpoint, step, stage.settings, config.keep, losses)
        journal.step = step

    while step < config.steps and time.monotonic() < stage.until:
        state.set_rates({module: config.rate_at(step, module) for module in modules})
        losses.append(_step(state, loss_of, stage.seed, step))
        step += 1
        ending = step == config.steps
        logged, saved = step % config.log_every == 0 or ending, step % config.save_every == 0 or ending
        watched = watch is not None and (step % (config.watch_every or config.save_every) == 0 or ending)
        if logged or saved or watched:
            means, losses = _means(losses, accelerator, step, journal.kept)
        if logged:
            pace = (time.monotonic() - began) / (step - first)
            if main:
                log.info("%s %d/%d %s %.2f s/step", stage.name, step, config.steps, json.dumps(means), pace)
            journal.add({"stage": stage.name, "step": step, **means})
            journal.do(partial(accelerator.log, means, step=step))
            losses = []
        if report is not None and main:
            report(step, config.steps, means)
        # Before the checkpoint: what a process was killed before is done again by the next one.
        if watch is not None and watched:
            state.check(step, journal.kept)
            with state.averaged():
                if (write := watch(step)) is not None:
                    journal.do(write)
        if saved:
            save()
    if step > first and step < config.steps:
        if losses:
            means, losses = _means(losses, accelerator, step, journal.kept)
        save()
    journal.begin()  # where there was no step to do
    state.use_average()
    return step >= config.steps


@contextmanager
def learning(modules: Mapping[str, nn.Module]) -> Iterator[None]:
    """Let all parameters learn within the ``with`` block, in training mode; afterwards none do, in evaluation mode."""
    for module in modules.values():
        module.requires_grad_(True).train()
    try:
        yield
    finally:
        for module in modules.values():
            module.requires_grad_(False).eval()


def _step(state: TrainingState, loss_of: Callable[[Draw], dict[str, Tensor]], seed: int, step: int) -> StepLosses:
    """Do one step of the optimizer; return the terms' means over this process's parts."""
    accelerator = state.accelerator
    count, names, found = accelerator.gradient_accumulation_steps, tuple[str, ...](), list[Tensor]()
    state.optimizer.zero_grad(set_to_none=True)
    for i in range(count):
        draw = Draw(seed, step, accelerator.process_index * count + i, accelerator.num_processes * count)
        with accelerator.autocast():
            terms = loss_of(draw)
        accelerator.backward(terms["loss"])  # divides by the accumulation steps
        # A copy: what a CUDA graph returned is overwritten by the next one.
        names, found = tuple(terms), [*found, torch.stack([value.detach().float() for value in terms.values()])]
    state.update(step)
    return StepLosses(names, found[0] if count == 1 else torch.stack(found).mean(0))


def _means(
    losses: Sequence[StepLosses], accelerator: Accelerator, step: int, kept: str
) -> tuple[dict[str, float], list[StepLosses]]:
    """Return means over steps and processes, and those of each step. A term counts only in the steps that had it.

    Raises:
        InputError: a mean is not finite; the message ends with ``kept``, what there is of the run then.
    """
    keys = sorted({name for entry in losses for name in entry.names})
    values = {key: [entry.values[entry.names.index(key)] for entry in losses if key in entry.names] for key in keys}
    local = torch.stack([torch.stack(values[key]).mean() for key in keys])
    with named_failure():
        shared = accelerator.reduce(torch.cat([local, *(entry.values for entry in losses)]), "mean")
    # What a GPU could not do in the steps before comes out here, and is not another process's fault.
    numbers = shared.tolist()
    means = dict(zip(keys, numbers, strict=False))
    if not all(math.isfinite(value) for value in means.values()):
        broken = ", ".join(key for key, value in means.items() if not math.isfinite(value))
        raise InputError(
            f"the loss is no number any more by step {step} ({broken}): lower the rate or the weights; {kept}"
        )
    each = shared[len(keys) :].split([len(entry.names) for entry in losses])
    return means, [StepLosses(entry.names, own) for entry, own in zip(losses, each, strict=True)]
