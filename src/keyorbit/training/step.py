"""One step of joint training: both passes of the UNet once, and every loss from that one forward."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from keyorbit import losses
from keyorbit.attention import AttentionRecord, capture_attention, without_autocast
from keyorbit.backends.zero123plus import Zero123PlusBackend
from keyorbit.data import Objects
from keyorbit.discover import DiscoverConfig, map_side
from keyorbit.heatmaps import resize
from keyorbit.objective import Observed, objective, token_heatmaps, with_peak_one
from keyorbit.silhouettes import grown_masks, silhouette_distance
from keyorbit.tokens import Tokens
from keyorbit.training.batch import Batch, Example, load_example
from keyorbit.training.config import TrainConfig
from keyorbit.training.diffusion import alphas, min_snr_weights, velocity
from keyorbit.training.optimise import Draw
from keyorbit.warps import Warp

# Where the terms of keyorbit.objective belong; those that are not named here are geometric.
_GROUPS = {"spread": "localization", "sharpening": "localization", "geometric": "consistency"}


class TrainingStep:
    """The losses of a step, for :func:`keyorbit.training.optimise.optimise`; inside :meth:`recording` only."""

    def __init__(
        self,
        backend: Zero123PlusBackend,
        objects: Objects,
        tokens: Tokens,
        config: TrainConfig,
        reading: DiscoverConfig,
    ) -> None:
        self.backend, self.objects, self.tokens = backend, objects, tokens
        self.config, self.reading = config, reading
        self.blank = backend.empty_condition(1)
        self.record: AttentionRecord | None = None

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Capture attention for a whole run: with gradient checkpointing, backward needs it as well."""
        kind = self.reading.maps
        assert self.reading.layers is not None
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
        """Every term that counts at this step, the weighted sum of the keypoint terms, and ``loss``, of them all."""
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
        """The part's samples, warped versions among them where equivariance counts."""
        warps = replace(self.reading.prepare, warps=1 if "equivariance" in weights else 0)
        c = self.config
        return Batch.of(
            [
                load_example(self.backend, self.objects, i, c.seed, warps, c.timesteps, c.dropped, self.blank)
                for i in draw.samples(c.batch)
            ]
        )

    def novel_views(self, batch: Batch) -> Float[Tensor, ""]:
        """Run the UNet on the batch; the mean squared error of its v-prediction, on grids that are not warped."""
        backend = self.backend
        alpha = alphas(backend.parts.scheduler, batch.timestep)
        noised = backend.add_noise(batch.clean, batch.noise, batch.timestep)
        context = self.tokens.append_to(batch.context)
        predicted = backend.denoise(noised, batch.timestep, context, batch.condition_latent, batch.condition_noise)
        error = (predicted.float() - velocity(batch.clean, batch.noise, alpha)).square().mean((1, 2, 3))
        weighted = min_snr_weights(alpha, self.config.min_snr) * error
        return rearrange(weighted, "(o n) -> o n", o=len(batch.examples))[:, 0].mean()

    def keypoints(self, batch: Batch, temperature: float, warped: bool) -> dict[str, Float[Tensor, ""]]:
        """The keypoint terms from the maps of the forward just run, each a mean over the samples.

        A sample with more noise than ``keypoint_timesteps`` has none; the others stand for it, so that the mean is
        the same in expectation and does not depend on how a step is cut into batches.
        """
        assert self.record is not None, "outside recording()"
        assert self.reading.maps is not None
        kind, side = self.reading.maps, map_side(self.backend, self.reading.map_size)
        layers = self.record.token_maps() if kind == "attention" else self.record.token_logits()
        heatmaps = token_heatmaps(layers, self.backend.layout, kind, side, temperature)
        first, last = self.config.timesteps
        share = (min(last, self.config.keypoint_timesteps) - first) / (last - first)
        names = ("localization", "consistency", "geometric", *(("equivariance",) if warped else ()))
        sums = {name: heatmaps.new_zeros(()) for name in names}
        by_object = rearrange(heatmaps, "(o n) ... -> o n ...", o=len(batch.examples))
        for example, maps in zip(batch.examples, by_object, strict=True):
            if int(example.timestep[0]) < self.config.keypoint_timesteps:
                for name, value in keypoint_terms(example, maps, self.reading, warped).items():
                    sums[name] = sums[name] + value
        return {name: value / (share * len(batch.examples)) for name, value in sums.items()}


def keypoint_terms(
    example: Example, heatmaps: Float[Tensor, "version view token side side"], reading: DiscoverConfig, warped: bool
) -> dict[str, Float[Tensor, ""]]:
    """The keypoint terms of one object: the parts of :func:`keyorbit.objective.objective` in three groups.

    localization, consistency and geometric are sums of its terms times their :class:`LossWeights`; equivariance, where
    asked for, compares heatmaps of peak 1, as StableKeypoints (Hedlin et al. 2024) compares its maps.
    """
    size = (heatmaps.shape[-2], heatmaps.shape[-1])
    masks = grown_masks(example.masks, size)
    distance = resize(silhouette_distance(example.masks[0]), size)
    seen = Observed(heatmaps[None], example.warps[None], masks[None], distance[None])
    found = objective(seen, example.cameras, reading.weights)
    terms = {name: heatmaps.new_zeros(()) for name in ("localization", "consistency", "geometric")}
    for name, value in found.items():
        if name != "total":
            group = _GROUPS.get(name, "geometric")
            terms[group] = terms[group] + getattr(reading.weights, name) * value
    if warped:
        maps = with_peak_one(heatmaps)
        still, moved = maps[:1].expand_as(maps[1:]), maps[1:]
        terms["equivariance"] = losses.equivariance(still, moved, Warp(example.warps[1:]))
    return terms
