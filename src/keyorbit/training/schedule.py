"""The steps and learning rates of a training. It imports no library but the checks: settings are read before torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from keyorbit.discovery.ranges import Rate
from keyorbit.values import Amount, Count, Share, check_fields


@dataclass(frozen=True)
class OptimiseConfig:
    """How one stage is trained.

    The learning rate rises over ``warmup`` steps, stays constant, and falls to a twentieth over the last ``cooldown``
    share of the steps. A run can be made longer as long as its cool-down has not begun.

    Attributes:
        steps: number of steps.
        rate: learning rate.
        warmup: steps in which the rate rises. Default 200.
        cooldown: share of the steps, at the end, in which it falls. Default 0.2.
        average: decay of the average of the weights. Default 0.999.
        save_every: steps between checkpoints. Default 250.
        log_every: steps between lines of the log. Default 25.
        rates: learning rate by module, for those that have their own.
        starts: first step by module, for those that do not learn from the beginning. Their rate rises from there.
        keep: number of earlier checkpoints that are kept. Default 0.
        watch_every: steps between calls of ``watch``. Default None: ``save_every``.

    Raises:
        InputError: a value is out of its range.
    """

    steps: Amount
    rate: Rate
    warmup: Amount = 200
    cooldown: Share = 0.2
    average: Share = 0.999
    save_every: Count = 250
    log_every: Count = 25
    rates: Mapping[str, Rate] = field(default_factory=dict)
    starts: Mapping[str, Amount] = field(default_factory=dict)
    keep: Amount = 0
    watch_every: Count | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    def rate_at(self, step: int, module: str = "") -> float:
        """Compute the learning rate of a step; 0 before the module's start."""
        start = self.starts.get(module, 0)
        if step < start:
            return 0.0
        rise = min(1.0, (step - start + 1) / max(1, self.warmup))
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return self.rates.get(module, self.rate) * rise * max(0.05, min(1.0, left))
