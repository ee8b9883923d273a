"""How far to trust a detection: a probability for each keypoint, and one that the tokens know the object at all.

Heatmaps of any tokens on any object have peaks, whose rays meet somewhere: scores and reprojection errors alone do not
tell a chair from a cheetah. What does is how the whole object fits the tokens' constellation, beside how the objects
did that they were found on (:class:`keyorbit.diffusion.tokens.Statistics`). Both probabilities are logistic regressions
of a few such differences, whose weights are constants that ``benchmarks/calibration.py`` fitted; docs/confidence.md has
their measurement. None grows with anything that speaks against the object.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from keyorbit.diffusion.tokens import Statistics
from keyorbit.geometry.constellation import Reading
from keyorbit.geometry.keypoints import Keypoints3D

# The limits between the verdicts, as probabilities that the tokens know the object.
SURE, KNOWN = 0.8, 0.5
# What a clue counts at most, both ways: beyond it one clue would outweigh all others.
_FIT, _MARGIN, _EVIDENCE, _STRAY = 8.0, 2.0, 4.0, 1.0

# Of fit, margin and evidence beside the statistics, of the mean 3D score, and the constant.
OBJECT = (0.9, 1.5, 1.0, 8.0, -2.0)
# Of a keypoint's evidence and stray beside the statistics, of its 3D score, of the object's logit, and the constant.
KEYPOINT = (0.5, -3.0, 2.0, 0.5, 0.0)

Verdict = Literal["known", "doubtful", "unknown"]
_COLOURS: dict[Verdict, str] = {"known": "#007A55", "doubtful": "#8A5A00", "unknown": "#B3261E"}


@dataclass(frozen=True, eq=False)
class Confidence:
    """How far to trust a detection.

    Attributes:
        known: probability that the tokens know this object: that it is of the kind that they were found on.
        keypoints: probability of each keypoint to lie within 10 % of the object's size of its part, [keypoint].
    """

    known: float
    keypoints: Float[Tensor, " keypoint"]

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
        count, right = len(self.keypoints), float(self.keypoints.sum())
        share = f"about {right:.0f} of {count} keypoints are at their parts"
        if self.verdict == "known":
            return f"these tokens know this object ({self.known:.0%}); {share}"
        if self.verdict == "doubtful":
            return (
                f"these tokens may not know this object ({self.known:.0%}); {share}: look at the views, or give a "
                "picture of the object alone, without its background"
            )
        return (
            f"these tokens do not know this object ({self.known:.0%}): its keypoints mean nothing; give a picture of "
            "the kind that the tokens were found on, cut out of its background, or discover tokens on its own kind"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values of the whole object, ready for JSON."""
        return {"known": round(self.known, 6), "verdict": self.verdict, "words": self.words}


# Why there may be none.
NO_CONFIDENCE = (
    "it is not known how far to trust them, for the tokens keep no statistics of the objects that they were found on, "
    "or were not read by their constellation; tokens that 'keyorbit discover' finds now keep some"
)


def confidence_of(
    reading: Reading | None, points: Keypoints3D | None, statistics: Statistics | None
) -> Confidence | None:
    """How far to trust what was found; None where the tokens have no statistics or no constellation read it."""
    if statistics is None or reading is None or points is None:
        return None
    logit = weighed(object_clues(reading, points, statistics), OBJECT)
    own = keypoint_clues(reading, points, statistics, logit)
    return Confidence(float(logit.sigmoid()), weighed(own, KEYPOINT).sigmoid())


def object_clues(reading: Reading, points: Keypoints3D, statistics: Statistics) -> Float[Tensor, "4"]:
    """Fit, margin and mean evidence beside the statistics, in nats, and the mean 3D score."""
    evidence = reading.strength - reading.strength.new_tensor(statistics.evidence)
    return torch.stack(
        [
            (reading.fit - statistics.fit).clamp(-_FIT, _FIT),
            (reading.margin - statistics.margin).clamp(-_MARGIN, _MARGIN),
            evidence.mean().clamp(-_EVIDENCE, _EVIDENCE),
            points.score.mean(),
        ]
    )


def keypoint_clues(
    reading: Reading, points: Keypoints3D, statistics: Statistics, logit: Float[Tensor, ""]
) -> Float[Tensor, "keypoint 4"]:
    """Of each keypoint: evidence and stray beside the statistics, its 3D score, and the object's logit."""
    evidence = reading.strength - reading.strength.new_tensor(statistics.evidence)
    stray = reading.stray - reading.stray.new_tensor(statistics.stray)
    return torch.stack(
        [
            evidence.clamp(-_EVIDENCE, _EVIDENCE),
            stray.clamp(-_STRAY, _STRAY),
            points.score,
            logit.expand(len(evidence)),
        ],
        dim=-1,
    )


def weighed(clues: Float[Tensor, "*batch clue"], weights: tuple[float, ...]) -> Float[Tensor, "*batch"]:
    """The logit: the weighted sum of the clues; the last weight is the constant."""
    *each, constant = weights
    total: Tensor = clues @ clues.new_tensor(each) + constant
    return total
