"""Names for keypoints that were found without any: the phrase whose map agrees best with a token's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from keyorbit.detection.choices import NEAR_NAME
from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews


@dataclass(frozen=True)
class Name:
    """What a keypoint is called.

    Attributes:
        phrase: the phrase that it got; empty where none agrees by ``near``, or all that do mark other keypoints
            better.
        agreement: of the two maps, 0…1: the Bhattacharyya coefficient, mean over views and objects.
        runner_up: the phrase that agrees best of the others.
        runner_up_agreement: how well.
    """

    phrase: str
    agreement: float
    runner_up: str
    runner_up_agreement: float


@torch.no_grad()
def agreements(
    backend: Backend,
    tokens: Tokens,
    phrases: Sequence[str],
    objects: Sequence[ObjectViews],
    tell: Callable[[int, int], None] = lambda done, total: None,
    config: DetectConfig | None = None,
    force: bool = False,
) -> Float[Tensor, "token phrase"]:
    """How well each token's maps agree with each phrase's, 0…1, mean over views and objects.

    Both are read from the same passes of the UNet, at the tokens' own layers and timestep. ``tell`` is called after
    each object, with how many are done and how many there are.

    Raises:
        InputError: there is no object, a phrase cannot be read (:meth:`Tokens.from_phrases`), or the tokens are another
            model's.
    """
    count = len(tokens)
    rows = torch.cat([tokens.embedding.detach(), Tokens.from_phrases(backend, phrases).embedding.detach()])
    both = Tokens(rows, replace(tokens.info, names=(), pairs=(), places=(), form=()))
    detector = KeypointDetector(backend, both, config, force)
    if not objects:
        raise InputError("names are found on objects: give at least one")
    found = []
    for done, thing in enumerate(objects, 1):
        found.append(_agreement(detector.detect_object(thing).heatmaps, count))
        tell(done, len(objects))
    return torch.stack(found).mean(0)


def choose_names(
    agreement: Float[Tensor, "token phrase"], phrases: Sequence[str], near: float = NEAR_NAME
) -> tuple[Name, ...]:
    """Give each token at most one phrase and each phrase at most one token, so that the sum of agreements is largest.

    What agrees less than ``near`` (0…1, default 0.5) is no name.
    """
    useful = torch.where(agreement >= near, agreement, 0.0)
    chosen = dict(
        zip(*(numbers.tolist() for numbers in linear_sum_assignment(useful.numpy(), maximize=True)), strict=True)
    )
    names = []
    for token, row in enumerate(agreement):
        best = chosen.get(token)
        named = best is not None and bool(row[best] >= near)
        order = [i for i in row.argsort(descending=True).tolist() if not named or i != best]
        shown = best if named and best is not None else order.pop(0)
        other = order[0] if order else None
        names.append(
            Name(
                phrases[shown] if named else "",
                float(row[shown]),
                "" if other is None else phrases[other],
                0.0 if other is None else float(row[other]),
            )
        )
    return tuple(names)


def _agreement(
    heatmaps: Float[Tensor, "view token_and_phrase height width"], count: int
) -> Float[Tensor, "token phrase"]:
    roots = heatmaps.flatten(-2).sqrt()
    return torch.einsum("vtp,vnp->tn", roots[:, :count], roots[:, count:]) / len(heatmaps)
