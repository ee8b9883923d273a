"""The state of a training run: weights, their average, the optimizer. Written whole; the last few are kept."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from msgspec import Meta
from torch import Tensor, nn

from keyorbit.errors import InputError
from keyorbit.ranks import named_failure
from keyorbit.storage.checkpoint import (
    check_tensors,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from keyorbit.storage.files import make_folder
from keyorbit.storage.settings import goes_on_to
from keyorbit.values import Amount, Count, Finite, from_values

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class StepLosses:
    """The terms of one step where they were computed: their names, and one value each."""

    names: tuple[str, ...]
    values: Float[Tensor, " term"]


@dataclass(frozen=True)
class _Scaler:
    """The state of torch's gradient scaler, which has it under these names."""

    scale: Annotated[float, Meta(gt=0, le=2.0**127)]
    growth_factor: Annotated[float, Meta(gt=1, le=1e6)]
    backoff_factor: Annotated[float, Meta(gt=0, lt=1)]
    growth_interval: Count
    _growth_tracker: Amount


@dataclass(frozen=True)
class _Header:
    """What a checkpoint holds besides tensors: losses are those of the steps since the last line of the log."""

    step: Amount
    settings: dict[str, Any] | None = None
    scaler: _Scaler | None = None
    losses: tuple[dict[str, Finite], ...] = ()


@dataclass(frozen=True, eq=False)
class Resumed:
    """Where a run goes on.

    Attributes:
        step: number of steps that are done.
        losses: of the steps since the last line of the log.
        before: number of steps that the run was to have, where it is to have another one now.
    """

    step: int = 0
    losses: list[StepLosses] = field(default_factory=list)
    before: int | None = None


class TrainingState:
    """The parameters of ``modules`` that require a gradient, their average, and AdamW with one group for each module.

    Every process holds the same state. Gradients are averaged over the processes before the step, in one tensor and
    without a wrapper round the modules, because the UNet runs twice in a step.
    """

    def __init__(self, modules: Mapping[str, nn.Module], average: float, rate: float, accelerator: Accelerator) -> None:
        self.accelerator, self.decay = accelerator, average
        groups = {
            name: {f"{name}.{key}": p for key, p in module.named_parameters() if p.requires_grad}
            for name, module in modules.items()
        }
        self.groups = {name: parameters for name, parameters in groups.items() if parameters}
        self.weights: dict[str, nn.Parameter] = {key: p for group in self.groups.values() for key, p in group.items()}
        self.average: dict[str, Tensor] = {key: p.detach().clone() for key, p in self.weights.items()}
        optimizer = _adamw([list(group.values()) for group in self.groups.values()], rate)
        self.optimizer: Any = accelerator.prepare_optimizer(optimizer)

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Set the learning rate of each module. At rate 0 its gradient is not even computed."""
        for (name, weights), group in zip(self.groups.items(), self.optimizer.param_groups, strict=True):
            group["lr"] = rates[name]
            for p in weights.values():
                p.requires_grad_(rates[name] > 0)

    def update(self, step: int) -> None:
        """Average the gradients over processes, clip their norm at 1, do the step, and update the weights' average."""
        if self.accelerator.num_processes > 1:
            self._share_gradients()
        self.accelerator.clip_grad_norm_(list(self.weights.values()), 1.0)
        self.optimizer.step()
        self._follow(step)

    def _share_gradients(self) -> None:
        learning = [p for p in self.weights.values() if p.requires_grad]
        # One process may have no gradient where another has.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
        flat = torch.cat([g.flatten() for g in gradients])
        with named_failure():
            flat = self.accelerator.reduce(flat, "mean")
        for p, mean in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
            p.grad = mean.view_as(p)

    @torch.no_grad()
    def _follow(self, step: int) -> None:
        # A young average forgets faster: its first values are the random start.
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.values()), [p.data for p in self.weights.values()], 1 - decay)

    def restore(
        self,
        path: Path,
        settings: Mapping[str, Any] | None,
        older: Mapping[str, Callable[[], Any]] | None = None,
    ) -> Resumed:
        """Restore a checkpoint if there is one.

        Args:
            path: the checkpoint.
            settings: of the run; those of the checkpoint may only have another number of ``steps``. None: not compared.
            older: as in :func:`keyorbit.storage.settings.differing`.

        Raises:
            InputError: it is damaged, or has other settings or other weights, or more steps are done.
        """
        if not path.exists():
            return Resumed()
        tensors, metadata = load_checkpoint(path)
        about = from_values(_Header, metadata, str(path))
        now = json.loads(json.dumps(settings or {}))
        before = goes_on_to(path, now, about.settings or {}, about.step, older)
        stored = {key.removeprefix("weight.") for key in tensors if key.startswith("weight.")}
        if stored != self.weights.keys():
            raise InputError(f"{path} holds other weights than those to be trained: give another folder")
        wanted = {f"{kind}.{key}": p for key, p in self.weights.items() for kind in ("weight", "average")}
        check_tensors(tensors, wanted, self.optimizer, path)
        restore_optimizer(self.optimizer, tensors)
        self._lay_as_weights()
        for key, p in self.weights.items():
            p.data.copy_(tensors[f"weight.{key}"])
            self.average[key].copy_(tensors[f"average.{key}"])
        if self.accelerator.scaler is not None and about.scaler is not None:
            self.accelerator.scaler.load_state_dict(asdict(about.scaler))
        log.info("%s resumes at step %d", path.stem, about.step)
        device = self.accelerator.device
        since = [StepLosses(tuple(terms), torch.tensor([*terms.values()], device=device)) for terms in about.losses]
        return Resumed(about.step, since, before)

    def _lay_as_weights(self) -> None:
        """Give the moments their weights' order in memory, which files do not keep: fused kernels take no other."""
        for p, state in self.optimizer.state.items():
            for name, value in state.items():
                if value.shape == p.shape and value.stride() != p.stride():
                    state[name] = torch.empty_like(p).copy_(value)

    def check(self, step: int, kept: str) -> None:
        """Raise InputError where a weight or an average is not finite; ``kept`` says what there is of the run then."""
        norms = torch._foreach_norm([p.detach() for p in self.weights.values()] + list(self.average.values()))
        if norms and not torch.stack(norms).isfinite().all():
            raise InputError(
                f"weights are no numbers any more by step {step}: lower the rate or the losses' weights; {kept}"
            )

    def save(
        self, path: Path, step: int, settings: Mapping[str, Any] | None, keep: int, losses: Sequence[StepLosses] = ()
    ) -> None:
        """Replace the checkpoint (main process only) by the state, which :meth:`check` found to be finite.

        Args:
            path: the checkpoint.
            step: number of steps done.
            settings: of the run.
            keep: number of earlier checkpoints that stay, see :meth:`keep`.
            losses: of the steps since the last line of the log, the same in all processes. Default: none.
        """
        if self.accelerator.is_main_process:
            tensors: dict[str, Tensor] = {f"weight.{key}": p for key, p in self.weights.items()}
            tensors |= {f"average.{key}": p for key, p in self.average.items()}
            scaler = self.accelerator.scaler
            metadata = {"step": step, "settings": settings, "scaler": scaler and scaler.state_dict()}
            if losses:
                metadata["losses"] = [dict(zip(one.names, one.values.tolist(), strict=True)) for one in losses]
            save_checkpoint(path, tensors | optimizer_tensors(self.optimizer), metadata, digest=True)
            self.keep(path, step, keep)
        with named_failure():
            self.accelerator.wait_for_everyone()

    @staticmethod
    def keep(path: Path, step: int, count: int) -> None:
        """Give the checkpoint of a step a second name, and remove all but the last ``count + 1`` of these names.

        They are beside it, in a folder of its name. Nothing is done where ``count`` is 0. To do it again does no harm.
        """
        if not count:
            return
        folder = path.with_suffix("")
        make_folder(folder)
        named = folder / f"{path.stem}_{step:07d}.safetensors"
        try:
            named.unlink(missing_ok=True)
            try:
                os.link(path, named)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, named)
            steps = "[0-9]" * 7
            for old in sorted(folder.glob(f"{path.stem}_{steps}.safetensors"))[: -(count + 1)]:
                old.unlink()
        except OSError as error:
            raise InputError(f"cannot write {named}: {error}") from error

    def use_average(self) -> None:
        """Put the averaged weights into the modules."""
        for key, p in self.weights.items():
            p.data.copy_(self.average[key])

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the modules hold the averaged weights within the ``with`` block."""
        kept = {key: p.detach().clone() for key, p in self.weights.items()}
        self.use_average()
        try:
            yield
        finally:
            for key, p in self.weights.items():
                p.data.copy_(kept[key])


def _adamw(groups: list[list[nn.Parameter]], rate: float) -> torch.optim.AdamW:
    """AdamW, as one kernel for all weights where their device has it.

    Not on the CPU, where it sums in another order: runs would not end in the same bits as those of earlier versions.
    """
    make = partial(torch.optim.AdamW, lr=rate, betas=(0.9, 0.99), weight_decay=1e-3)
    if all(p.device.type != "cpu" for group in groups for p in group):
        with suppress(RuntimeError):  # this torch has none for the device
            return make([{"params": group} for group in groups], fused=True)
    return make([{"params": group} for group in groups])
