"""Inputs of a page: a finished run and its scores. They are checked and read without torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keyorbit.errors import InputError
from keyorbit.storage.content import json_of
from keyorbit.values import Amount, Finite, NotNegative, from_values

_Figures = dict[str, Finite | None]


@dataclass(frozen=True)
class RunFacts:
    """What a page shows of RUN/run.json.

    Attributes:
        data: path of the objects, or paths of them, or of the cache. Default: not known.
        objects: number of them. Default: not known.
        seconds: that the run took. Default: not known.
    """

    data: str | tuple[str, ...] | None = None
    objects: Amount | None = None
    seconds: NotNegative | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """The paths, of which there may be several."""
        return (self.data,) if isinstance(self.data, str) else self.data or ()


@dataclass(frozen=True)
class _Row:
    """What a page shows of :class:`keyorbit.evaluation.evaluate.ObjectScores`."""

    name: str = ""
    turn_deg: Finite | None = None


@dataclass(frozen=True)
class _Evaluation:
    """What a page shows of :class:`keyorbit.Evaluation`."""

    objects: tuple[_Row, ...]
    reprojection: Finite | None = None
    on_object: Finite | None = None
    landmark_3d: Finite | None = None
    landmark_2d: Finite | None = None
    dual_alignment: Finite | None = None
    coverage: Finite | None = None
    input: _Figures | None = None
    measures: _Figures | None = None
    landmark_3d_median: Finite | None = None
    landmark_2d_median: Finite | None = None
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Scores:
    discovered: _Evaluation
    untrained: _Evaluation | None = None


def check_run_folder(folder: Path) -> None:
    """Raise an error unless a folder may hold a finished discovery.

    Raises:
        InputError: there is no such folder, or the run in it is not finished.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not the folder of a run; make one with 'keyorbit discover'")
    if not (folder / "tokens.safetensors").is_file() and (folder / "checkpoint.safetensors").is_file():
        raise InputError(f"the run in {folder} is not finished; go on with 'keyorbit discover … --resume'")


def read_scores(path: Path) -> dict[str, Any]:
    """Read the output of ``keyorbit evaluate --json``.

    Raises:
        InputError: it is another file.
    """
    scores = from_values(_Scores, json_of(path), str(path), others=True)
    both = {"discovered": scores.discovered, "untrained": scores.untrained}
    return {name: asdict(found) for name, found in both.items() if found is not None}


def read_facts(run: Path) -> RunFacts:
    """Read a run's run.json; nothing is known where there is none.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    path = run / "run.json"
    return from_values(RunFacts, json_of(path), str(path), others=True) if path.exists() else RunFacts()
