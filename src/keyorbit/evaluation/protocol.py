"""StableKeypoints' protocol from end to end: optimise, select, regress, evaluate, compared with the paper's numbers.

Source: Hedlin et al. 2024, Unsupervised Keypoints from Pretrained Diffusion Models; github ubc-vision/StableKeypoints,
main.py. All is done as published; what differs still is listed in docs/evaluation.md. The preset ``keyorbit`` has the
same numbers and our own choices.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from keyorbit.detection.config import DetectConfig
from keyorbit.detection.detector import KeypointDetector
from keyorbit.diffusion.backends.base import Backend
from keyorbit.diffusion.prepare import object_generator
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig, preset_config
from keyorbit.discovery.discover import Report, discover
from keyorbit.discovery.weights import SingleViewWeights
from keyorbit.errors import InputError
from keyorbit.evaluation.choices import ProtocolConfig
from keyorbit.evaluation.landmarks import check_landmarks
from keyorbit.evaluation.metrics import (
    HUMAN36M_PUBLISHED,
    apply_landmark_map,
    fit_landmark_map,
    fit_oriented_landmark_map,
    inter_eye_error,
    mean_average_error,
    orientation_invariant_error,
    pck_at_pixels,
    visible_error,
)
from keyorbit.objects.dataset import Objects, drawn

Metric = Callable[[Tensor, Tensor, Tensor], Tensor]
SOURCE = "Hedlin et al. 2024, as listed by Papers with Code"


@dataclass(frozen=True)
class Measured:
    """How the landmarks of a data set are scored.

    Attributes:
        metric: computes the value from (predicted, truth, known).
        name: of the metric.
        unit: of the value times ``factor``.
        better: direction.
        factor: default 1.
        published: StableKeypoints' own number in that unit; None if no source of it could be checked.
    """

    metric: Metric
    name: str
    unit: str
    better: str
    factor: float = 1.0
    published: float | None = None


def _inter_eye(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    return inter_eye_error(predicted, truth, mask=known)


def _taichi(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    return mean_average_error(predicted, truth, known)


def _deepfashion(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    return pck_at_pixels(predicted, truth, known)


def _human36m(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    return orientation_invariant_error(predicted, truth, mask=known, order=HUMAN36M_PUBLISHED)


_CELEBA = Measured(_inter_eye, "inter_eye_error", "% of the eyes' distance", "less", 100.0)
_CUB = Measured(visible_error, "visible_error", "% of the side", "less", 100.0)
PROTOCOLS: dict[str, Measured] = {
    "celeba-aligned": _CELEBA,
    "celeba-wild": _CELEBA,
    "cub-aligned": _CUB,
    "cub-001": _CUB,
    "cub-002": _CUB,
    "cub-003": _CUB,
    "cub-all": _CUB,
    "taichi": Measured(_taichi, "mean_average_error", "px of 256, summed over landmarks", "less", published=234.89),
    "deepfashion": Measured(_deepfashion, "pck_at_pixels", "% within 6 px of 256", "more", 100.0, 70.0),
    "human3.6m": Measured(_human36m, "orientation_invariant_error", "px of 128", "less", published=4.45),
    "unaligned-human3.6m": Measured(_human36m, "orientation_invariant_error", "px of 128", "less"),
}
# By keyorbit the queries of each picture are kept.
_KEPT = 100


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """The result of a protocol.

    Attributes:
        dataset: name of the data set.
        measured: how it was scored.
        value: the score, in the unit of ``measured``.
        optimised_on: number of train pictures on which the tokens were optimised.
        fitted_on: number of train pictures for the regression.
        tested_on: number of test pictures.
        tokens: the tokens.
        config: the settings.
    """

    dataset: str
    measured: Measured
    value: float
    optimised_on: int
    fitted_on: int
    tested_on: int
    tokens: Tokens = field(repr=False)
    config: ProtocolConfig

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "protocol": "stablekeypoints",
            "dataset": self.dataset,
            "metric": self.measured.name,
            "unit": self.measured.unit,
            "better": self.measured.better,
            "value": self.value,
            "published": self.measured.published,
            "published_source": None if self.measured.published is None else SOURCE,
            "optimised_on": self.optimised_on,
            "fitted_on": self.fitted_on,
            "tested_on": self.tested_on,
            "config": asdict(self.config),
        }


def discovery_config(config: ProtocolConfig) -> DiscoverConfig:
    """Return the settings of the first two stages: the original's, or ours with its maps, warps and numbers."""
    base = preset_config("stablekeypoints")
    if config.preset == "keyorbit":
        base = replace(base, mode="isolated", published=())
    return replace(
        base,
        num_tokens=config.keypoints,
        num_candidates=max(config.tokens, config.keypoints),
        steps=config.steps,
        batch=config.batch,
        rate=config.rate,
        seed=config.seed,
        map_size=config.map_size,
        single_view=SingleViewWeights(subjects=config.subjects, strategy=config.strategy),
    )


def run_protocol(
    backend: Backend,
    dataset: str,
    train: Objects,
    test: Objects,
    config: ProtocolConfig | None = None,
    out: Path | None = None,
    report: Report | None = None,
) -> ProtocolResult:
    """Optimise and select tokens on train pictures, fit the regression of landmarks on them, and score test pictures.

    Args:
        backend: a model of a single view.
        dataset: one of :data:`PROTOCOLS`; it chooses the metric.
        train: train pictures with landmarks.
        test: test pictures with landmarks.
        config: default :class:`ProtocolConfig`.
        out: folder for the checkpoints of the discovery. Default None: none are written.
        report: called as ``report(stage, done, total, values)``.

    Raises:
        InputError: the data set has no protocol, the model has several views, pictures have no landmarks, or test
            pictures have other landmarks than train pictures.
    """
    config = config or ProtocolConfig()
    report = report or (lambda stage, done, total, values: None)
    if dataset not in PROTOCOLS:
        raise InputError(f"StableKeypoints has no protocol for {dataset!r}; it has for {', '.join(PROTOCOLS)}")
    if backend.layout.num_views != 1:
        raise InputError(f"StableKeypoints' protocol is for models of one view; {backend.name} has several")
    check_landmarks([train[0], test[0]])
    shown = train[: _KEPT if config.pictures is None and config.preset == "keyorbit" else config.pictures]
    tokens = discover(backend, shown, discovery_config(config), out, report=report)
    detector = KeypointDetector(backend, tokens, DetectConfig(noises=1, warps=config.augmentations, peak="argmax"))
    # The original mirrors Taichi-HD's pictures for the tokens, and not for the regression.
    seed = config.seed if config.preset == "stablekeypoints" and dataset != "taichi" else None
    fit = _detect(detector, train[: config.fit], seed, lambda i, n: report("regress", i, n, {}))
    judged = _detect(detector, test[: config.test], seed, lambda i, n: report("evaluate", i, n, {}))
    measured = PROTOCOLS[dataset]
    value = score(dataset, *fit, *judged)
    return ProtocolResult(dataset, measured, value, len(shown), len(fit[0]), len(judged[0]), tokens, config)


def score(
    dataset: str,
    fit_keypoints: Float[Tensor, "fit keypoint 2"],
    fit_landmarks: Float[Tensor, "fit landmark 2"],
    fit_known: Bool[Tensor, "fit landmark"],
    keypoints: Float[Tensor, "item keypoint 2"],
    landmarks: Float[Tensor, "item landmark 2"],
    known: Bool[Tensor, "item landmark"],
) -> float:
    """Do the protocol's last two stages as published: regression (with sides exchanged for Human3.6M), and metric.

    Raises:
        InputError: no landmark of the test pictures is known.
    """
    keypoints, landmarks, known = keypoints.cpu().double(), landmarks.cpu().double(), known.cpu()  # MPS has no float64
    inputs, targets = fit_keypoints.cpu().double(), fit_landmarks.cpu().double()
    if dataset.endswith("human3.6m"):
        order = HUMAN36M_PUBLISHED
        linear = fit_oriented_landmark_map(inputs, targets, mask=fit_known.cpu(), ridge=None, order=order)
    else:
        linear = fit_landmark_map(inputs, targets, fit_known.cpu(), None)
    predicted = apply_landmark_map(linear, keypoints)
    measured = PROTOCOLS[dataset]
    try:
        return measured.factor * float(measured.metric(predicted, landmarks, known))
    except ValueError as error:
        raise InputError(f"{dataset} cannot be scored: {error}") from error


def _detect(
    detector: KeypointDetector, objects: Objects, seed: int | None, progress: Callable[[int, int], None]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return keypoints, landmarks and which of them are known. Pictures are read one by one, and none is kept.

    Each is drawn once with random numbers of the seed; None: it is taken as it is.
    """
    keypoints, landmarks, known = [], [], []
    for i in range(len(objects)):
        thing = objects[i] if seed is None else drawn(objects, i, object_generator(seed, i))
        if thing.truth is None:
            raise InputError(f"{thing.name} has no landmarks to regress")
        keypoints.append(detector.detect_object(thing).keypoints_2d.xy[0])
        landmarks.append(thing.truth.keypoints_2d[0])
        known.append(thing.truth.known & thing.truth.visible[0])
        progress(i + 1, len(objects))
    return torch.stack(keypoints), torch.stack(landmarks), torch.stack(known)
