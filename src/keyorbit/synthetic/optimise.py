"""A training loop that can stop at any step: AdamW, warm-up, cool-down, an average of the weights, checkpoints."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from keyorbit.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OptimiseConfig:
    """How one stage is trained.

    The rate rises over ``warmup`` steps, stays, and falls to a twentieth over the last ``cooldown`` share of the
    steps: a plan can be made longer until the cool-down begins. ``average`` is the decay of the weights' average.
    """

    steps: int
    rate: float
    warmup: int = 200
    cooldown: float = 0.2
    average: float = 0.999
    save_every: int = 250
    log_every: int = 25

    def rate_at(self, step: int) -> float:
        """The learning rate of that step."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.rate * rise * max(0.05, min(1.0, left))


def optimise(
    name: str,
    modules: Mapping[str, nn.Module],
    loss_of: Callable[[torch.Generator], dict[str, Tensor]],
    config: OptimiseConfig,
    out: Path,
    accelerator: Accelerator,
    seed: int = 0,
    until: float = float("inf"),
    watch: Callable[[int], None] | None = None,
) -> bool:
    """Train ``modules`` on ``loss_of(generator)["loss"]``, from ``out/{name}.safetensors`` on if that exists.

    Every random number of step n comes from the generator that is passed, seeded with (seed, n): a run that was
    stopped ends as one that was not (bit-identical on a CPU). Leaves the averaged weights in the modules.

    Args:
        until: ``time.monotonic()`` at which to stop, saved.
        watch: called with the step after each checkpoint, with the averaged weights in the modules.

    Returns:
        Whether all steps are done.
    """
    run = _Run(modules, config)
    path = out / f"{name}.safetensors"
    step = run.restore(path)
    began, first, losses = time.monotonic(), step, list[dict[str, float]]()
    while step < config.steps and time.monotonic() < until:
        for group in run.optimizer.param_groups:
            group["lr"] = config.rate_at(step)
        with accelerator.autocast():
            terms = loss_of(torch.Generator().manual_seed(seed * 10**7 + step))
        run.optimizer.zero_grad(set_to_none=True)
        accelerator.backward(terms["loss"])
        nn.utils.clip_grad_norm_(list(run.weights.values()), 1.0)
        run.optimizer.step()
        run.follow(step)
        losses.append({key: value.detach() for key, value in terms.items()})  # type: ignore[misc]
        step += 1
        if step % config.log_every == 0:
            means = {key: float(sum(entry[key] for entry in losses)) / len(losses) for key in losses[0]}
            pace = (time.monotonic() - began) / (step - first)
            log.info("%s %d/%d %s %.2f s/step", name, step, config.steps, json.dumps(means), pace)
            append_line(out / "log.jsonl", {"stage": name, "step": step, **means})
            losses = []
        if step % config.save_every == 0 or step == config.steps:
            run.save(path, step)
            if watch is not None:
                with run.averaged():
                    watch(step)
    if step > first:
        run.save(path, step)
    run.use_average()
    return step >= config.steps


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """One JSON object as a line of a log."""
    with open(path, "a") as file:
        file.write(json.dumps(values) + "\n")


class _Run:
    """Weights, their average and the optimizer."""

    def __init__(self, modules: Mapping[str, nn.Module], config: OptimiseConfig) -> None:
        self.config = config
        self.weights: dict[str, Tensor] = {
            f"{m}.{key}": p for m, module in modules.items() for key, p in module.named_parameters()
        }
        self.average: dict[str, Tensor] = {key: p.detach().clone() for key, p in self.weights.items()}
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=config.rate, betas=(0.9, 0.99), weight_decay=1e-3)

    def restore(self, path: Path) -> int:
        if not path.exists():
            return 0
        tensors, metadata = load_checkpoint(path)
        restore_optimizer(self.optimizer, tensors)
        for key, p in self.weights.items():
            p.data.copy_(tensors[f"weight.{key}"])
            self.average[key].copy_(tensors[f"average.{key}"])
        log.info("%s resumes at step %d", path.stem, metadata["step"])
        return int(metadata["step"])

    def save(self, path: Path, step: int) -> None:
        tensors = {f"weight.{key}": p for key, p in self.weights.items()}
        tensors |= {f"average.{key}": p for key, p in self.average.items()}
        save_checkpoint(path, tensors | optimizer_tensors(self.optimizer), {"step": step})

    @torch.no_grad()
    def follow(self, step: int) -> None:
        # A young average forgets faster: its first values are the random start.
        decay = min(self.config.average, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [p.data for p in self.weights.values()], 1 - decay)

    def use_average(self) -> None:
        for key, p in self.weights.items():
            p.data.copy_(self.average[key])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the ``with`` block the modules hold the averaged weights."""
        kept = {key: p.detach().clone() for key, p in self.weights.items()}
        self.use_average()
        try:
            yield
        finally:
            for key, p in self.weights.items():
                p.data.copy_(kept[key])
