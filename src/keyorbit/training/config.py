"""The settings of joint training."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from keyorbit.diffusion.choices import Layers, Mode
from keyorbit.discovery.config import DiscoverConfig, SettledConfig, config_from_settings
from keyorbit.discovery.ranges import Rate, Temperature, Weight
from keyorbit.discovery.weights import LossWeights
from keyorbit.errors import InputError
from keyorbit.training.choices import Precision, Tracker, Trained
from keyorbit.training.schedule import OptimiseConfig
from keyorbit.values import Amount, Count, Seed, Share, check_fields

if TYPE_CHECKING:  # a file of settings is read before there is torch
    import keyorbit.diffusion.backends.base
    import keyorbit.diffusion.tokens

Shape = Literal["constant", "linear", "cosine"]
# No projection of a UNet is so wide that more could be told apart.
Rank = Annotated[int, Meta(ge=1, le=4096)]
# A timestep that is not drawn any more.
Bound = Annotated[int, Meta(ge=0, le=1000)]
# What may differ between a run and the run that resumes it: none of it changes what is learned.
_ONLY_WATCHING = ("save_every", "keep", "log_every", "sample_every", "tracker", "checkpointing")


@dataclass(frozen=True)
class Term:
    """The weight of one loss over the steps of a run.

    The weight is 0 before ``start``, then rises linearly to ``weight`` over ``warmup`` steps. From there it is
    constant, or changes to ``end`` at the last step.

    Attributes:
        weight: 0 or more.
        start: first step of the rise. Default 0.
        warmup: number of steps of the rise. Default 0.
        shape: ``constant`` (default), ``linear``, or ``cosine`` (half a period).
        end: weight at the last step, 0 or more. Default 0. Not used if the shape is ``constant``.
    """

    weight: Weight
    start: Amount = 0
    warmup: Amount = 0
    shape: Shape = "constant"
    end: Weight = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def at(self, step: int, steps: int) -> float:
        """Compute the weight at a step of a run of ``steps``."""
        risen = self.start + self.warmup
        if step < risen:
            return self.weight * max(0, step - self.start + 1) / (self.warmup + 1)
        if self.shape == "constant":
            return self.weight
        way = (step - risen) / max(1, steps - 1 - risen)
        if self.shape == "cosine":
            way = 0.5 - 0.5 * math.cos(math.pi * way)
        return self.weight + (self.end - self.weight) * way


@dataclass(frozen=True)
class Terms:
    """The weights of the losses of a training step.

    :class:`LossWeights` weighs the parts of localization, consistency and geometric.

    Attributes:
        nvs: error of the v-prediction on the grid. Default 1.
        localization: each heatmap has one narrow peak. Default 0.5.
        equivariance: warped views have equally warped heatmaps. Default 0; above 0 it doubles the UNet's work.
        consistency: the positions in all views belong to one point in space. Default 0.3.
        geometric: these points lie apart from each other and on the object. Default 0.2.
        keypoint: factor of all terms but ``nvs``. Default 1.
    """

    nvs: Term = field(default_factory=lambda: Term(1.0))
    localization: Term = field(default_factory=lambda: Term(0.5))
    equivariance: Term = field(default_factory=lambda: Term(0.0))
    consistency: Term = field(default_factory=lambda: Term(0.3))
    geometric: Term = field(default_factory=lambda: Term(0.2))
    keypoint: Weight = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def at(self, step: int, steps: int) -> dict[str, float]:
        """Compute every term's weight at a step; terms of weight 0 are left out."""
        found = {}
        for item in fields(self):
            if item.name != "keypoint":
                weight = getattr(self, item.name).at(step, steps)
                found[item.name] = weight if item.name == "nvs" else self.keypoint * weight
        return {name: weight for name, weight in found.items() if weight}


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on the attention layers' projections (Hu et al. 2022).

    Attributes:
        rank: rank of the adapters, 1 to 4096. Default 16. Increase it if the views do not improve enough.
        alpha: scale; the adapters are multiplied by alpha / rank. Default 16.
        layers: names of the projections.
    """

    rank: Rank = 16
    alpha: Count = 16
    layers: Annotated[tuple[str, ...], Meta(min_length=1)] = ("to_q", "to_k", "to_v", "to_out.0")

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of :func:`keyorbit.training.train.train`.

    Attributes:
        train: what learns besides the tokens: ``tokens`` (nothing else), ``lora`` (default; adapters on the UNet's
            attention) or ``full`` (the whole UNet; needs most memory).
        num_tokens: number of keypoints, 1 or more. Default 16. Given tokens keep their own number.
        steps: number of steps. Default 1000.
        batch: objects in one forward pass. Default 1. Increase it as far as memory allows.
        accumulate: forward passes for each step, on each process. Default 4.
        seed: default 0. All random numbers follow from it.
        mode: ``joint`` (default): the tokens take part in the UNet's softmax. ``isolated``: they only read it.
        tokens_first: share of the steps in which only the tokens learn, 0…1. Default 0.2.
        terms: weights of the losses.
        timesteps: range from which timesteps are drawn, within 0…1000; the last one is excluded. Default (0, 1000).
        keypoint_timesteps: keypoint losses count below this timestep. Default 700. Above it the views are noise.
        min_snr: γ of the timesteps' weights (min-SNR). Default 0: all weigh the same. The paper uses 5.
        dropped: share of samples without condition, 0…1, as classifier-free guidance needs. Default 0.1.
        token_rate: learning rate of the tokens. Default 0.01.
        unet_rate: learning rate of the UNet. Default None: 1e-4 for LoRA, 1e-5 for the full UNet.
        warmup: steps in which the learning rates rise. Default 50.
        cooldown: share of the steps, at the end, in which they fall. Default 0.2.
        average: decay of the average of the weights. Default 0.999.
        lora: settings of the adapters.
        layers: layers at which the tokens are read, names or patterns. Default None: as the given tokens were
            discovered, or else the model's own.
        start_temperature: temperature of the softmax over pixels at the first step. Default None: the temperature with
            which the given tokens were discovered, or else that of
            :class:`~keyorbit.discovery.discover.DiscoverConfig`.
        temperature: the same at the end. Default None: as ``start_temperature``.
        weights: of the parts of the keypoint losses. Default None: as the given tokens were discovered, or else the
            default.
        precision: ``no`` (default, float32), ``bf16`` or ``fp16`` for the forward passes.
        checkpointing: gradient checkpointing: less memory, more time. Default False.
        save_every: steps between checkpoints. Default 250.
        keep: number of earlier checkpoints that are kept. Default 2.
        log_every: steps between lines of the log. Default 10.
        sample_every: steps between sheets of generated views. Default 0: none.
        sample_steps: denoising steps of these views. Default 28.
        tracker: ``none`` (default), ``tensorboard``, ``trackio`` or ``wandb``.

    Raises:
        InputError: a value is out of its range.
    """

    train: Trained = "lora"
    num_tokens: Count = 16
    steps: Amount = 1000
    batch: Count = 1
    accumulate: Count = 4
    seed: Seed = 0
    mode: Mode = "joint"
    tokens_first: Share = 0.2
    terms: Terms = field(default_factory=Terms)
    timesteps: tuple[Bound, Bound] = (0, 1000)
    keypoint_timesteps: Bound = 700
    min_snr: Annotated[float, Meta(ge=0, le=10**9)] = 0.0
    dropped: Share = 0.1
    token_rate: Rate = 0.01
    unet_rate: Rate | None = None
    warmup: Amount = 50
    cooldown: Share = 0.2
    average: Share = 0.999
    lora: Lora = field(default_factory=Lora)
    layers: Layers | None = None
    start_temperature: Temperature | None = None
    temperature: Temperature | None = None
    weights: LossWeights | None = None
    precision: Precision = "no"
    checkpointing: bool = False
    save_every: Count = 250
    keep: Amount = 2
    log_every: Count = 10
    sample_every: Amount = 0
    sample_steps: Annotated[int, Meta(ge=1, le=1000)] = 28
    tracker: Tracker = "none"

    def __post_init__(self) -> None:
        check_fields(self)
        first, last = self.timesteps
        if not first < min(last, self.keypoint_timesteps):
            raise InputError(
                f"timesteps cannot be {first} to {last} with keypoint_timesteps = {self.keypoint_timesteps}; the first "
                "must be below both others"
            )

    def optimise_config(self) -> OptimiseConfig:
        """Return the settings of the training loop."""
        rate = self.unet_rate or (1e-4 if self.train == "lora" else 1e-5)
        first = 0 if self.train == "tokens" else round(self.tokens_first * self.steps)
        return OptimiseConfig(
            self.steps,
            rate,
            warmup=self.warmup,
            cooldown=self.cooldown,
            average=self.average,
            save_every=self.save_every,
            log_every=self.log_every,
            rates={"tokens": self.token_rate},
            starts={"unet": first},
            keep=self.keep,
            watch_every=self.sample_every or self.steps + 1,
        )

    def reading(
        self, backend: "keyorbit.diffusion.backends.base.Backend", tokens: "keyorbit.diffusion.tokens.Tokens | None"
    ) -> SettledConfig:
        """Return how the tokens are read: as they were discovered, if they were, changed by what is set here."""
        base = DiscoverConfig(num_tokens=self.num_tokens, num_candidates=self.num_tokens)
        start = base.start_temperature
        if tokens is not None and tokens.info.settings:
            base = config_from_settings(tokens.info.settings)
            start = base.temperature
        count = self.num_tokens if tokens is None else len(tokens)
        return replace(
            base,
            num_tokens=count,
            num_candidates=count,
            mode=self.mode,
            steps=self.steps,
            layers=base.layers if self.layers is None else self.layers,
            start_temperature=start if self.start_temperature is None else self.start_temperature,
            temperature=base.temperature if self.temperature is None else self.temperature,
            weights=base.weights if self.weights is None else self.weights,
        ).settled(backend)

    def settings(self) -> dict[str, Any]:
        """Return the settings that a resumed run must have in common with the first one."""
        return {key: value for key, value in asdict(self).items() if key not in _ONLY_WATCHING}
