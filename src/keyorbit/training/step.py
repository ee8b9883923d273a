"""One step of joint training: both passes of the UNet run once, and all losses are computed from that forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from keyorbit.diffusion.attention import AttentionRecord, capture_attention
from keyorbit.diffusion.backends.base import Backend, check_backend
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import Mode, Timestep
from keyorbit.diffusion.maps import token_heatmaps
from keyorbit.diffusion.scores import without_autocast
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery import losses
from keyorbit.discovery.config import SettledConfig, map_side
from keyorbit.discovery.objective import Observed, objective
from keyorbit.errors import InputError
from keyorbit.geometry.heatmaps import with_peak_one
from keyorbit.geometry.warps import Warp
from keyorbit.objects.dataset import Objects, ObjectViews
from keyorbit.objects.given import check_object
from keyorbit.training.batch import Batch, Encoded, ExampleLoader, check_objects
from keyorbit.training.config import TrainConfig
from keyorbit.training.optimise import Draw
from keyorbit.values import check_kind, check_value

# Where the terms of keyorbit.discovery.objective belong; those that are not named here are geometric.
_GROUPS = {"spread": "localization", "sharpening": "localization", "geometric": "consistency"}


class TrainingStep:
    """The losses of a step, for :func:`keyorbit.training.optimise.optimise`. Call it inside :meth:`recording`."""

    def __init__(
        self,
        backend: Zero123PlusBackend,
        objects: Objects,
        tokens: Tokens,
        config: TrainConfig,
        reading: SettledConfig,
    ) -> None:
        self.backend, self.tokens = backend, tokens
        self.config, self.reading = config, reading
        self.side = map_side(backend, reading.map_size)
        self.loader = ExampleLoader(backend, objects, config, self.side)
        place_schedule(backend.parts.scheduler, backend.device)
        self.record: AttentionRecord | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Capture attention for a whole run. With gradient checkpointing, the backward pass needs it as well."""
        kind = self.reading.maps
        with capture_attention(
            self.backend.unet,
            self.reading.layers,
            ("grid",),
            self.config.mode,
            heads="each" if kind == "stablekeypoints" else "mean",
            normalizer=kind == "attention",
        ) as self.record:
            yield

    def __call__(self, draw: Draw) -> dict[str, Float[Tensor, ""]]:
        """Compute every term that counts at this step, the weighted sum of the keypoint terms, and ``loss``."""
        weights = self.config.terms.at(draw.step, self.config.steps)
        batch = self.load(draw, weights)
        terms = {"nvs": self.novel_views(batch)}
        keypoint = [name for name in weights if name != "nvs"]
        if keypoint:
            with without_autocast(self.backend.device.type):
                terms |= self.keypoints(batch, self.reading.temperature_at(draw.step), "equivariance" in keypoint)
            terms["keypoint"] = torch.stack([weights[name] * terms[name] for name in keypoint]).sum()
        view_loss = weights.get("nvs", 0.0) * terms["nvs"]
        return terms | {"loss": view_loss + terms["keypoint"] if keypoint else view_loss}

    def load(self, draw: Draw, weights: dict[str, float]) -> Batch:
        """Load the part's samples, with warped versions if equivariance counts."""
        warps = replace(self.reading.prepare, warps=1 if "equivariance" in weights else 0)
        return Batch.of([self.loader.load(i, warps) for i in draw.samples(self.config.batch)])

    def predict(self, batch: Batch) -> Float[Tensor, "item channel height width"]:
        """Run both passes of the UNet on the batch; return its v-prediction for the grids."""
        noised = self.backend.add_noise(batch.clean, batch.noise, batch.timestep)
        context = self.tokens.append_to(batch.context)
        return self.backend.denoise(noised, batch.timestep, context, batch.condition_latent, batch.condition_noise)

    def novel_views(self, batch: Batch) -> Float[Tensor, ""]:
        """Run the UNet on the batch; return the mean squared error of its v-prediction on grids that are not warped."""
        return self.view_error(batch, self.predict(batch))

    def view_error(self, batch: Batch, predicted: Float[Tensor, "item channel height width"]) -> Float[Tensor, ""]:
        """Compute the mean squared error of a v-prediction on grids that are not warped."""
        alpha = alphas(self.backend.parts.scheduler, batch.timestep)
        error = (predicted.float() - velocity(batch.clean, batch.noise, alpha)).square().mean((1, 2, 3))
        weighted = min_snr_weights(alpha, self.config.min_snr) * error
        return rearrange(weighted, "(o n) -> o n", o=len(batch.examples))[:, 0].mean()

    def keypoints(self, batch: Batch, temperature: float, warped: bool) -> dict[str, Float[Tensor, ""]]:
        """Compute the keypoint terms from the maps of the last forward pass, each a mean over the samples.

        A sample whose timestep is ``keypoint_timesteps`` or more has none. The others are weighted for it, so that the
        mean is the same in expectation and does not depend on how a step is cut into batches.
        """
        if self.record is None:
            raise RuntimeError("a training step is computed inside its recording()")
        kind = self.reading.maps
        layers = self.record.token_maps() if kind == "attention" else self.record.token_logits()
        heatmaps = token_heatmaps(layers, self.backend.layout, kind, self.side, temperature)
        first, last = self.config.timesteps
        share = (min(last, self.config.keypoint_timesteps) - first) / (last - first)
        names = ("localization", "consistency", "geometric", *(("equivariance",) if warped else ()))
        sums = {name: heatmaps.new_zeros(()) for name in names}
        by_object = rearrange(heatmaps, "(o n) ... -> o n ...", o=len(batch.examples))
        for example, maps in zip(batch.examples, by_object, strict=True):
            if example.timestep < self.config.keypoint_timesteps:
                for name, value in keypoint_terms(example.encoded, maps, self.reading, warped).items():
                    sums[name] = sums[name] + value
        return {name: value / (share * len(batch.examples)) for name, value in sums.items()}


@dataclass(frozen=True, eq=False)
class Step:
    """What one forward pass of joint training gives for one object; losses are scalars with a gradient to the tokens.

    Attributes:
        v: v-prediction for the grid of views, shape [1, channel, rows·height, columns·width], latent pixels.
        record: attention of the grid pass: logits and probabilities [1, head, position, token] of every layer.
        nvs: mean squared error of ``v``.
        localization: spread of the heatmaps (and sharpening, if it has a weight); weighted by
            :class:`~keyorbit.discovery.weights.LossWeights`, as the next two.
        consistency: how far the positions in all views are from one point in space.
        geometric: separation of these points, and their distance from the object.
        total: the sum of the four, with the weights of :class:`~keyorbit.training.config.Terms` (1, 0.5, 0.3, 0.2).
    """

    v: Float[Tensor, "one channel height width"]
    record: AttentionRecord
    nvs: Float[Tensor, ""]
    localization: Float[Tensor, ""]
    consistency: Float[Tensor, ""]
    geometric: Float[Tensor, ""]
    total: Float[Tensor, ""]


def training_step(
    backend: Backend, thing: ObjectViews, tokens: Tokens, timestep: int = 300, mode: Mode = "joint", seed: int = 0
) -> Step:
    """Compute one step of joint training on one object, without changing anything.

    It is what a step of :func:`keyorbit.train` computes for an object without warps, at a timestep that is given.

    Args:
        backend: a Zero123++.
        thing: an object with its views, as many as the model has.
        tokens: their embedding gets the gradient of ``total.backward()``.
        timestep: 0…999. Default 300.
        mode: ``joint`` (default): tokens take part in the UNet's softmax. ``isolated``: they only read it, so that
            ``v`` and ``nvs`` do not depend on them.
        seed: of the noise. Default 0.

    Raises:
        InputError: the model has a single view, the object's views are missing or not as many as the model's, the
            tokens are another model's, or the timestep is out of range.
    """
    check_backend(backend)
    check_object(thing)
    check_kind("tokens", tokens, Tokens, "what keyorbit.discover returns, or Tokens.load reads")
    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"{backend.name} has a single view: a training step is for Zero123++ models")
    check_value("timestep", timestep, Timestep)
    check_objects([thing], backend)
    config = TrainConfig(num_tokens=len(tokens), mode=mode, seed=seed, dropped=0.0)
    config = replace(config, timesteps=(timestep, timestep + 1), keypoint_timesteps=1000)
    reading, weights = config.reading(backend, tokens), config.terms.at(0, 1)
    step = TrainingStep(backend, [thing], tokens, config, reading)
    batch = step.load(Draw(seed, 0), weights)
    with capture_attention(backend.unet, reading.layers, ("grid",), mode) as step.record:
        v = step.predict(batch)
    terms = {"nvs": step.view_error(batch, v)} | step.keypoints(batch, reading.temperature_at(0), warped=False)
    total = torch.stack([weight * terms[name] for name, weight in weights.items()]).sum()
    return Step(v, step.record, total=total, **terms)


def keypoint_terms(
    shown: Encoded, heatmaps: Float[Tensor, "version view token side side"], reading: SettledConfig, warped: bool
) -> dict[str, Float[Tensor, ""]]:
    """Compute the keypoint terms of one object from :func:`keyorbit.discovery.objective.objective`, in three groups.

    localization, consistency and geometric are sums of its terms, each times its weight in :class:`LossWeights`. If
    ``warped``, equivariance compares heatmaps scaled to peak 1, as StableKeypoints (Hedlin et al. 2024) compares its
    maps.
    """
    seen = Observed(heatmaps[None], shown.warps[None], shown.masks[None], shown.distance[None])
    found = objective(seen, shown.cameras, reading.weights)
    terms = {name: heatmaps.new_zeros(()) for name in ("localization", "consistency", "geometric")}
    for name, value in found.items():
        if name != "total":
            group = _GROUPS.get(name, "geometric")
            terms[group] = terms[group] + getattr(reading.weights, name) * value
    if warped:
        maps = with_peak_one(heatmaps)
        still, moved = maps[:1].expand_as(maps[1:]), maps[1:]
        terms["equivariance"] = losses.equivariance(still, moved, Warp(shown.warps[1:]))
    return terms


def place_schedule(scheduler: Any, device: torch.device) -> None:
    """Keep ᾱ of a diffusers scheduler on a device, where every step of training reads it; it is copied only once."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to(device)


def alphas(scheduler: Any, timestep: Int[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1"]:
    """Return ᾱ of a diffusers scheduler at each timestep, in a shape that broadcasts to latents."""
    schedule: Tensor = scheduler.alphas_cumprod.to(timestep.device)
    return schedule[timestep].reshape(-1, 1, 1, 1)


def velocity(
    clean: Float[Tensor, "batch channel height width"],
    noise: Float[Tensor, "batch channel height width"],
    alpha: Float[Tensor, "batch 1 1 1"],
) -> Float[Tensor, "batch channel height width"]:
    """Compute v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) x, the target of v-prediction (Salimans & Ho 2022, appendix D)."""
    return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean


def min_snr_weights(alpha: Float[Tensor, "batch 1 1 1"], gamma: float) -> Float[Tensor, " batch"]:
    """Compute min(SNR, γ) / (SNR + 1), SNR = ᾱ / (1 - ᾱ): min-SNR-γ for v-prediction (Hang et al. 2023, section 3.4).

    With γ = 0 every timestep has weight 1. The paper's γ is 5.
    """
    alpha = alpha.flatten()
    if gamma == 0:
        return torch.ones_like(alpha)
    snr = alpha / (1 - alpha)
    return snr.clamp_max(gamma) / (snr + 1)
