"""How much a model's queries know: tokens fitted to true landmarks, judged on other objects; and sheets of samples.

The landmark probe is supervised, so it is no method: it is the ceiling that discovery without labels works under, and
what the training of the tiny model is steered by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.maps import view_maps
from keyorbit.diffusion.prepare import object_generator
from keyorbit.diffusion.queries import QueryCache
from keyorbit.diffusion.recording import joined, record
from keyorbit.diffusion.tokens import Tokens
from keyorbit.evaluation.metrics import pck_per_point
from keyorbit.geometry.heatmaps import gaussian, normalize, soft_argmax_xy, spatial_softmax
from keyorbit.objects.dataset import ObjectViews
from keyorbit.synthetic.samples import SampleSpec, as_object, make_samples

# Objects of the probe: neither those of training (10⁹ on) nor those of data sets (below 10⁹).
_TRAIN, _TEST = 2 * 10**9, 2 * 10**9 + 10**6


@dataclass(frozen=True)
class ProbeConfig:
    """``every``: steps of training between two probes; ``steps``: of the fit; ``samples``: objects on a sheet.

    The fit's temperature falls from ``start_temperature``: fresh tokens have logits of order 1, and a softmax that cold
    has almost no gradient (queries that hold the landmarks themselves: PCK 0.72 after 300 steps without, 0.997 with).
    """

    every: int = 1000
    train_objects: int = 60
    test_objects: int = 50
    steps: int = 900
    rate: float = 0.05
    start_temperature: float = 0.2
    temperature: float = 0.01
    timestep: int = 100
    samples: int = 2
    sample_steps: int = 28


@dataclass(frozen=True, eq=False)
class ProbeObjects:
    """Objects of one category to fit on and to judge on; the model has seen neither."""

    train: list[ObjectViews]
    test: list[ObjectViews]


def probe_objects(category: str, config: ProbeConfig, size: int, workers: int = 1) -> ProbeObjects:
    """The probe's objects: always the same for a category, ``size`` pixels a view."""
    train = [SampleSpec(category, _TRAIN + i, size) for i in range(config.train_objects)]
    test = [SampleSpec(category, _TEST + i, size) for i in range(config.test_objects)]
    made = [as_object(sample) for sample in make_samples(train + test, workers)]
    return ProbeObjects(made[: len(train)], made[len(train) :])


def landmark_probe(backend: Zero123PlusBackend, objects: ProbeObjects, config: ProbeConfig | None = None) -> float:
    """PCK@0.1 of tokens fitted to the true 2D landmarks of some objects, on others' views, 0…1.

    A landmark counts where it is known and visible; it is right within 0.1 of the longer side of the object's box in
    that view (SPair-71k's PCK per point). Heatmaps are the averaged logits' softmax over the view, as in discovery.
    """
    config = config or ProbeConfig()
    test = objects.test
    tokens = fit_tokens(backend, objects.train, config)
    with torch.no_grad():
        heatmaps = _heatmaps(
            _cache(backend, test, config), backend, tokens, torch.arange(len(test)), config.temperature
        )
    xy = soft_argmax_xy(heatmaps).cpu()
    truth, seen = true_places(test)
    boxes = torch.cat([_box_sizes(thing) for thing in test])
    return float(pck_per_point(xy.flatten(0, 1), truth.flatten(0, 1), boxes, 0.1, seen.flatten(0, 1)))


def _cache(backend: Zero123PlusBackend, objects: Sequence[ObjectViews], config: ProbeConfig) -> QueryCache:
    known = RecordConfig(("*",), "attention", PrepareConfig().settled(config.timestep))
    return joined([record(thing, backend, known, object_generator(0, i)) for i, thing in enumerate(objects)])


def _heatmaps(
    cache: QueryCache, backend: Zero123PlusBackend, tokens: Tensor, items: Tensor, temperature: float
) -> Float[Tensor, "item view token side side"]:
    side = 2 * backend.latent_size(backend.view_size, backend.view_size)[0]
    maps = view_maps(cache.token_logits(tokens, items), backend.layout, (side, side))
    return spatial_softmax(maps, temperature)


def true_places(
    objects: Sequence[ObjectViews],
) -> tuple[Float[Tensor, "item view landmark 2"], Bool[Tensor, "item view landmark"]]:
    """Where the landmarks are in the six views, and which are known and visible there."""
    truths = [thing.truth for thing in objects if thing.truth is not None]
    xy = torch.stack([t.keypoints_2d[1:] for t in truths])
    seen = torch.stack([t.visible[1:] & t.known for t in truths])
    return xy, seen


def fit_tokens(backend: Zero123PlusBackend, objects: Sequence[ObjectViews], config: ProbeConfig) -> Tensor:
    """One token per landmark: cross-entropy between its heatmaps and Gaussians at the true places."""
    cache = _cache(backend, objects, config)
    xy, seen = (x.to(backend.device) for x in true_places(objects))
    generator = torch.Generator().manual_seed(0)
    start = Tokens.initialise(backend.text_statistics(generator), xy.shape[2], generator)
    tokens = start.embedding.detach().to(backend.device).requires_grad_(True)
    optimizer = torch.optim.Adam([tokens], lr=config.rate)
    for step in range(config.steps):
        items = torch.randperm(len(objects), generator=generator)[:8]
        left = max(0.0, 1 - step / (0.7 * config.steps))
        temperature = config.temperature * (config.start_temperature / config.temperature) ** left
        heatmaps = _heatmaps(cache, backend, tokens, items, temperature)
        target = normalize(gaussian(xy[items], heatmaps.shape[-2], heatmaps.shape[-1], sigma=1.0))
        entropy = -(target * heatmaps.clamp_min(1e-9).log()).sum((-2, -1))
        offset = F.smooth_l1_loss(soft_argmax_xy(heatmaps), xy[items], reduction="none", beta=0.05).sum(-1)
        loss = (entropy + 20 * offset)[seen[items]].mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            group["lr"] = config.rate * (1 - 0.9 * step / config.steps)
        optimizer.step()
    return tokens.detach()


def _box_sizes(thing: ObjectViews) -> Float[Tensor, "view 2"]:
    """Width and height of the object's box in each view, in sides of the view."""
    assert thing.masks is not None
    height, width = thing.masks.shape[-2:]
    return torch.stack([thing.masks.any(-2).sum(-1) / width, thing.masks.any(-1).sum(-1) / height], dim=-1)
