"""An earlier model as a teacher of the kinds that it knows: a model that learns others does not forget these."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.errors import InputError
from keyorbit.values import Positive, check_fields
from tiny_model.model import load_zero123plus


@dataclass(frozen=True)
class TeacherConfig:
    """What it predicts is the target on procedural objects of ``kinds``, in place of what was added to the views.

    Both have the same mean, and the teacher's has no noise: what a model knows stays at a small price (Li and Hoiem
    2016, "Learning without Forgetting"). ``weight``: of the squares of these items beside the others'.
    """

    folder: str
    kinds: tuple[str, ...]
    weight: Positive = 30.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, eq=False)
class Teacher:
    """The model, which learns nothing; knows: whether it does, by the number of a kind; the last is that of meshes."""

    backend: Zero123PlusBackend
    knows: Bool[Tensor, " kind"]
    weight: float

    @classmethod
    def of(cls, config: TeacherConfig, categories: tuple[str, ...], device: torch.device) -> "Teacher":
        """Load it. categories: each once, in the order of their numbers.

        Raises:
            InputError: its folder is not a whole Zero123++ model, or a kind is not among the categories.
        """
        if unknown := sorted(set(config.kinds) - set(categories)):
            raise InputError(f"the teacher's kinds are trained too: {', '.join(unknown)} is not among the categories")
        backend = load_zero123plus(Path(config.folder), str(device))
        knows = torch.tensor([kind in config.kinds for kind in categories] + [False]).to(device)
        return cls(backend, knows, config.weight)
