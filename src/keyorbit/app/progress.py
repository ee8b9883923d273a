"""How far a visitor's request is: steps with their time, and pictures of views that are still becoming."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Clock = Callable[[], float]
# Share of the time that the views take which pictures of them may take besides. A decoder takes about half a step.
_SHARE = 0.06
# Of the views' steps before the first picture: there is nothing to see yet, and a step's time is not known.
_FIRST = 0.2


@dataclass(frozen=True)
class Stage:
    """One step of a request as it is shown.

    Attributes:
        words: what it does.
        state: ``done``, ``now`` or ``next``.
        share: how much of it is done, 0…1; None where that is not known.
        time: how long it took, or how long it still takes, in words; empty where that is not known.
        note: what else there is to say of it now; empty for nothing.
    """

    words: str
    state: Literal["done", "now", "next"]
    share: float | None = None
    time: str = ""
    note: str = ""


class Times:
    """How long each step took last, by its words. Threads may share it."""

    def __init__(self) -> None:
        self._seconds, self._lock = dict[str, float](), threading.Lock()

    def last(self, words: str) -> float | None:
        """Seconds; None where the step was never done."""
        with self._lock:
            return self._seconds.get(words)

    def keep(self, words: str, seconds: float) -> None:
        """Note how long the step took."""
        with self._lock:
            self._seconds[words] = seconds


class Progress:
    """The steps of one request. The thread that does the work writes it, and the page reads it at any time.

    Args:
        steps: what each step does, in order.
        times: how long they took before.
        clock: gives seconds. Default: those of the system.
    """

    def __init__(self, steps: Sequence[str], times: Times, clock: Clock = time.monotonic) -> None:
        self.steps, self.times, self.clock = tuple(steps), times, clock
        self.pictures: tuple[tuple[str, str], ...] = ()
        # Replaced as a whole, so that a reader never sees half of a change.
        self._at: tuple[int, float, float | None, str] = (-1, clock(), None, "")
        self._took = dict[int, float]()

    def begin(self, words: str) -> None:
        """End the step that runs, and begin this one."""
        self.end()
        self._at = (self.steps.index(words), self.clock(), None, "")

    def end(self) -> None:
        """End the step that runs."""
        number, began, _, _ = self._at
        if number >= 0 and number not in self._took:
            self._took[number] = self.clock() - began
            self.times.keep(self.steps[number], self._took[number])

    def at(self, done: int, total: int) -> None:
        """Tell how much of the step that runs is done."""
        number, began, _, _ = self._at
        self._at = (number, began, done / max(1, total), "")

    @contextmanager
    def noting(self, words: str) -> Iterator[None]:
        """Within the block, say this of the step that runs; its time counts from the end of the block."""
        number, began, share, _ = self._at
        self._at = (number, began, share, words)
        try:
            yield
        finally:
            self._at = (number, self.clock(), share, "")

    def show(self, title: str, picture: str) -> None:
        """Show a picture, a data URL, in the place of one with the same title or behind the others."""
        kept = {**dict(self.pictures), title: picture}
        self.pictures = tuple(kept.items())

    def read(self) -> tuple[Stage, ...]:
        """Return all steps as they are now."""
        current, began, share, note = max(0, self._at[0]), *self._at[1:]
        return tuple(self._step(number, current, began, share, note) for number in range(len(self.steps)))

    def _step(self, number: int, current: int, began: float, share: float | None, note: str) -> Stage:
        words, took = self.steps[number], self._took.get(number)
        if took is not None:
            return Stage(words, "done", 1.0, _seconds(took))
        usual = self.times.last(words)
        if number != current:
            return Stage(words, "next", time=_about(usual))
        gone = self.clock() - began
        if note:
            return Stage(words, "now", share, note=note)
        if share is None and usual:
            share = min(gone / usual, 0.95)
        left = gone * (1 - share) / share if share else None
        return Stage(words, "now", share, _about(left, " left"))

    def html(self, wrong: str = "") -> str:
        """Render the steps for the page; ``wrong`` says why they ended early, by default they did not."""
        from keyorbit.output.page.panels import render

        return render("steps.html", steps=self.read(), pictures=self.pictures, wrong=wrong)


class Looks:
    """Decides after which steps the views are looked at while they become, so that it stays cheap.

    The prediction is decoded by the model itself: a linear map from latents to colours, which is common for previews,
    was tried, and shows the tiny model's in wrong colours (docs/decisions.md). So its cost is measured, and bounded.

    Args:
        share: of the views' time that looking may take. Default 0.06.
        clock: gives seconds. Default: those of the system.
    """

    def __init__(self, share: float = _SHARE, clock: Clock = time.monotonic) -> None:
        self.share, self.clock = share, clock
        self.spent, self.count = 0.0, 0
        self._began = clock()

    def look(self, done: int, steps: int, decode: Callable[[], Tensor]) -> Float[Tensor, "batch 3 height width"] | None:
        """Return the views after this step; None where looking would take too long, or they are about to be done."""
        at = self.clock()
        # What the steps alone take, all of them.
        budget = self.share * (at - self._began - self.spent) * steps / done
        each = self.spent / self.count if self.count else 0.0
        # Evenly over the steps that are left, as often as the budget allows.
        allowed = int(budget / each) if each else steps
        due = _FIRST + (1 - _FIRST) * self.count / max(1, allowed)
        if done >= steps or self.count >= allowed or done / steps < due:
            return None
        with torch.no_grad():
            found = decode().cpu()
        self.spent, self.count = self.spent + self.clock() - at, self.count + 1
        return found


def _about(seconds: float | None, more: str = "") -> str:
    """Time that is guessed, in words; empty where it is not known, or next to nothing."""
    return "" if seconds is None or seconds < 0.5 else f"about {_seconds(seconds)}{more}"


def _seconds(seconds: float) -> str:
    if seconds < 9.5:
        return f"{max(1, round(seconds))} s" if seconds >= 0.5 else "less than 1 s"
    if seconds < 90:
        return f"{round(seconds / 5) * 5} s"
    return f"{round(seconds / 60)} min"
