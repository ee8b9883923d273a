"""How far to trust a detection: a probability for each keypoint, and one that the tokens know the object at all.

Heatmaps of any tokens on any object have peaks, whose rays meet somewhere: neither scores nor reprojection errors alone
tell a chair from a cheetah. What does is how far the keypoints stray from their places in the tokens' constellation,
beside how far they did on the objects that the tokens were found on
(:class:`keyorbit.diffusion.tokens_info.Statistics`).
A model that makes a chair of a teapot is found out by the picture: the chair's points are not where the picture's own
heatmaps mark them. Both probabilities are logistic regressions of these and of the 3D scores. Their weights are
constants, which ``benchmarks/calibration.py`` fitted; docs/confidence.md has what was measured.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.tokens_info import Statistics
from keyorbit.geometry.constellation import Reading
from keyorbit.geometry.keypoints import Keypoints3D

# The limits between the verdicts, as probabilities that the tokens know the object.
SURE, KNOWN = 0.8, 0.5
# What the stray counts at most, radii, and the distance on the input picture, sides: one clue must not outweigh all.
_STRAY, _APART = 1.0, 0.3
# That distance where the views were not made from the picture: as on most objects that the tokens know.
_USUAL = 0.05

# Of the mean stray beside the statistics, of the mean 3D score, of the distance on the input picture, and the constant.
OBJECT = (-24.671, 5.202, -15.652, 1.116)
# Of a keypoint's stray beside the statistics, of its 3D score, of the object's logit, and the constant.
KEYPOINT = (-6.09, 2.494, 0.809, -1.86)

Verdict = Literal["known", "doubtful", "unknown"]
_COLOURS: dict[Verdict, str] = {"known": "#007A55", "doubtful": "#8A5A00", "unknown": "#B3261E"}


@dataclass(frozen=True, eq=False)
class Confidence:
    """How far to trust a detection.

    Attributes:
        known: probability that the tokens know this object: that it is of the kind that they were found on.
        keypoints: probability of each keypoint to lie within 10 % of the object's size of its part, [keypoint].
        model: what there is to say of the model where the object is not known; empty for nothing.
    """

    known: float
    keypoints: Float[Tensor, " keypoint"]
    model: str = ""

    @property
    def verdict(self) -> Verdict:
        """``known`` from 0.8 on, ``doubtful`` from 0.5 on, else ``unknown``."""
        return "known" if self.known >= SURE else "doubtful" if self.known >= KNOWN else "unknown"

    @property
    def color(self) -> str:
        """Of the verdict, as hex: readable on white, and beside its word, never instead of it."""
        return _COLOURS[self.verdict]

    @property
    def words(self) -> str:
        """One sentence, with the remedy where there is one."""
        return f"{self.judgement}: {self.advice}" if self.advice else self.judgement

    @property
    def judgement(self) -> str:
        """The sentence without the remedy."""
        count, right = len(self.keypoints), float(self.keypoints.sum())
        share = f"about {right:.0f} of {count} keypoints are at their parts"
        if self.verdict == "known":
            return f"these tokens know this object ({self.known:.0%}); {share}"
        if self.verdict == "doubtful":
            return f"these tokens may not know this object ({self.known:.0%}); {share}"
        return f"these tokens do not know this object ({self.known:.0%})"

    @property
    def advice(self) -> str:
        """The remedy alone, the same for all objects of a verdict and model; empty where the object is known."""
        if self.verdict == "known":
            return ""
        if self.verdict == "doubtful":
            return "look at the views, or give a picture of the object alone, without its background"
        return (
            "its keypoints mean nothing; give a picture of the kind that the tokens were found on, cut out of its "
            f"background, or discover tokens on its own kind{self.model and '; '}{self.model}"
        )

    def of_noise(self) -> "Confidence":
        """The same for a picture of noise: nothing is known, however good the views are that a model made of it."""
        return Confidence(0.0, torch.zeros_like(self.keypoints), NOISE)

    def to_dict(self) -> dict[str, Any]:
        """Plain values of the whole object, ready for JSON."""
        return {"known": round(self.known, 6), "verdict": self.verdict, "words": self.words}


# Of any model, where the picture is noise.
NOISE = "the picture is noise, of which the model makes an object that it knows"
# Of the tiny model, where it has made the views.
TINY = (
    "the tiny model was trained on a few procedural kinds only, and makes one of them of anything: for others take "
    "published weights, such as --model sudo-ai/zero123plus-v1.2"
)
# Why there may be none.
NO_CONFIDENCE = (
    "it is not known how far to trust them, for the tokens keep no statistics of the objects that they were found on, "
    "or were not read by their constellation; tokens that 'keyorbit discover' finds now keep some"
)


def confidence_of(
    reading: Reading | None, points: Keypoints3D | None, statistics: Statistics | None, apart: float | None = None
) -> Confidence | None:
    """How far to trust what was found; None where the tokens have no statistics or no constellation read it.

    Args:
        reading: by the constellation.
        points: in space.
        statistics: of the tokens.
        apart: median distance, on the input picture, between where its camera shows the points and where its own
            heatmaps mark them; in sides of the picture, infinite where no camera explains both. Default None: the views
            were not made from the picture.
    """
    if statistics is None or reading is None or points is None:
        return None
    logit = weighed(object_clues(reading, points, statistics, apart), OBJECT)
    own = keypoint_clues(reading, points, statistics, logit)
    return Confidence(float(logit.sigmoid()), weighed(own, KEYPOINT).sigmoid())


def object_clues(
    reading: Reading, points: Keypoints3D, statistics: Statistics, apart: float | None
) -> Float[Tensor, "3"]:
    """Mean stray beside the statistics, in radii, mean 3D score, and the distance on the input picture, in sides."""
    distance = points.score.new_tensor(min(_APART, _USUAL if apart is None else apart))
    return torch.stack([_stray(reading, statistics).mean(), points.score.mean(), distance])


def keypoint_clues(
    reading: Reading, points: Keypoints3D, statistics: Statistics, logit: Float[Tensor, ""]
) -> Float[Tensor, "keypoint 3"]:
    """Of each keypoint: stray beside the statistics, in radii, 3D score, and the object's logit."""
    stray = _stray(reading, statistics)
    return torch.stack([stray, points.score, logit.expand(len(stray))], dim=-1)


def _stray(reading: Reading, statistics: Statistics) -> Float[Tensor, " keypoint"]:
    beyond: Tensor = reading.stray - reading.stray.new_tensor(statistics.stray)
    return beyond.clamp(-_STRAY, _STRAY)


def weighed(clues: Float[Tensor, "*batch clue"], weights: tuple[float, ...]) -> Float[Tensor, "*batch"]:
    """The logit: the weighted sum of the clues; the last weight is the constant."""
    *each, constant = weights
    total: Tensor = clues @ clues.new_tensor(each) + constant
    return total
