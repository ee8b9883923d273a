"""What the vision encoder learns before the UNet has to read it: to tell from one picture what the six views show.

At the highest timesteps the condition latent is as noisy as the grid, so all that a sample can know of its input there
is the image embedding. Zero123++ has CLIP's, which saw 400 million pictures; the UNet's own loss cannot teach ours from
the few thousand pictures that are shown at those timesteps. Nor can the objects of the training set alone: the encoder
learns them by heart. A *look* is the input picture of another object, which costs a third of a whole sample to render.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from torch import Tensor, nn
from torch.nn import functional as F

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.objects.pictures import GREY
from keyorbit.synthetic.render import object_surface, random_light, render
from keyorbit.synthetic.samples import SampleSpec, in_parallel, input_azimuth, scene_of
from keyorbit.training.optimise import Draw, Stage, learning, optimise
from keyorbit.training.schedule import OptimiseConfig
from tiny_model.compiling import maybe_compiled
from tiny_model.training_data import (
    AGAIN,
    Encoded,
    Heading,
    Made,
    Stock,
    VisionInput,
    all_kinds,
    made_once,
    recipe_of,
    training_specs,
)

_HIDDEN, _POOLED = 512, 2


@dataclass(frozen=True)
class VisionConfig:
    """``batch`` pictures with views a step, and as many looks, of which there are ``looks`` of each kind.

    ``heading`` and ``kind`` weigh these losses beside the views' squares (about 0.2).
    """

    batch: int = 24
    looks: int = 10000
    heading: float = 1.0
    kind: float = 0.1
    optimise: OptimiseConfig = field(default_factory=lambda: OptimiseConfig(15000, 1e-3))


class ReadOut(nn.Module):
    """Thrown away after training: the six views' latents at half resolution, the kind of object, and its heading."""

    def __init__(self, width: int, latent: torch.Size, kinds: int) -> None:
        super().__init__()
        self.latent = (latent[0], latent[1] // _POOLED, latent[2] // _POOLED)
        size = self.latent[0] * self.latent[1] * self.latent[2]
        self.views = nn.Sequential(nn.Linear(width, _HIDDEN), nn.SiLU(), nn.Linear(_HIDDEN, size))
        self.kind = nn.Linear(width, kinds)
        self.heading = nn.Linear(width, 2 * kinds)

    def views_loss(
        self, embedding: Float[Tensor, "item width"], grids: Float[Tensor, "item channel height width"]
    ) -> Float[Tensor, ""]:
        """Squares of the views."""
        return F.mse_loss(self.views(embedding).unflatten(1, self.latent), F.avg_pool2d(grids, _POOLED))

    def kind_and_heading_losses(
        self,
        embedding: Float[Tensor, "item width"],
        kind: Int[Tensor, " item"],
        azimuth: Float[Tensor, " item"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of the kind; squares of the heading's cosine and sine."""
        row = torch.arange(len(kind), device=kind.device)
        found = rearrange(self.heading(embedding), "i (k d) -> i k d", d=2)[row, kind]
        truth = torch.stack([azimuth.cos(), azimuth.sin()], dim=-1)
        return F.cross_entropy(self.kind(embedding), kind), F.mse_loss(found, truth)


def render_looks(specs: list[SampleSpec], workers: int, path: Path) -> UInt8[Tensor, "look size size 4"]:
    """The input pictures of all specs, RGBA, kept in ``path``: a run that is resumed finds them there.

    Raises:
        InputError: ``path`` holds those of others.
    """

    def make() -> Made:
        return {"pictures": torch.from_numpy(np.stack(list(in_parallel(_look, specs, workers))))}, {}

    return made_once(path, "looks at", recipe_of(specs), make)[0]["pictures"]


def _look(spec: SampleSpec) -> UInt8[ndarray, "size size 4"]:
    scene = scene_of(spec)
    picture: ndarray = render(object_surface(scene.thing), scene.input_camera, spec.size, random_light(scene.rng))[0]
    return picture


def varied(
    pictures: UInt8[Tensor, "look size size 4"], azimuth: Float[Tensor, " look"], generator: torch.Generator
) -> tuple[UInt8[Tensor, "look size size 3"], Float[Tensor, " look"]]:
    """The looks on random grounds, half of them mirrored with their azimuths (radians), their channels in any order.

    A mirrored object is one of its kind seen from the other side, and so is one whose red is blue. Grounds are white
    half of the time, Zero123++'s grey, or any colour.
    """
    count, drawn = len(pictures), partial(torch.rand, generator=generator, device=pictures.device)
    mirrored = drawn(count) < 0.5
    pictures = torch.where(mirrored[:, None, None, None], pictures.flip(2), pictures)
    which, any_colour = drawn(count)[:, None], drawn(count, 3)
    ground = torch.where(which < 0.5, 1.0, torch.where(which < 0.75, GREY, any_colour))[:, None, None]
    order = drawn(count, 3).argsort(-1)[:, None, None]
    alpha = pictures[..., 3:] / 255  # as render.composite, but where the looks are
    mixed = (pictures[..., :3] * alpha + 255 * ground * (1 - alpha)).round().to(torch.uint8)
    return mixed.take_along_dim(order, -1), torch.where(mirrored, -azimuth, azimuth)


@dataclass(frozen=True, eq=False)
class Lesson:
    """One step's pictures with views, then as many looks, and what there is to tell of them.

    pictures: of all; kind and azimuth (radians): of all. grids: of the pictures with views.
    """

    pictures: UInt8[Tensor, "item size size 3"]
    grids: Float[Tensor, "viewed channel height width"]
    kind: Int[Tensor, " item"]
    azimuth: Float[Tensor, " item"]


class VisionTask:
    """The encoder and its read-out, what they are asked and what they are told.

    It is a stage of its own, :func:`train_vision`, and goes on beside the UNet's, which shows the encoder too few
    pictures to keep what it knows.

    Args:
        stock: draws of ``data``.
        data: on the backend's device.
        specs: those of ``data``; behind them it has meshes.
        path: where the looks are kept.
    """

    def __init__(
        self,
        config: VisionConfig,
        categories: tuple[str, ...],
        seed: int,
        stock: Stock,
        data: Encoded,
        specs: list[SampleSpec],
        meshes: Sequence[Heading],
        backend: Zero123PlusBackend,
        path: Path,
        workers: int,
    ) -> None:
        self.config, self.stock, self.data, self.device = config, stock, data, backend.device
        self.encoder, self.seen = backend.parts.vision_encoder, VisionInput(backend)
        names = all_kinds(categories, meshes)
        look_specs = training_specs(categories, config.looks, seed, backend.view_size)
        self.looks = render_looks(look_specs, workers, path).to(self.device)
        self.looked = Stock(categories, config.looks, self.device)
        # The training set's, then the looks'.
        shown = [
            *((spec.category, input_azimuth(spec)) for spec in specs),
            *meshes,
            *((spec.category, input_azimuth(spec)) for spec in look_specs),
        ]
        self.kind = torch.tensor([names.index(kind) for kind, _ in shown]).to(self.device)
        self.azimuth = torch.tensor([azimuth for _, azimuth in shown]).deg2rad().to(self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            readout = ReadOut(self.encoder.config.projection_dim, data.grids.shape[1:], len(names))
        self.readout = readout.to(self.device)

    def draw(self, generator: torch.Generator) -> Lesson:
        """As many random objects as looks; the generator is of the backend's device."""
        count, items = self.config.batch, len(self.data.grids)
        picked = self.stock.draw(count, generator)
        ground = torch.randint(2, (count,), generator=generator, device=self.device)
        looked = self.looked.draw(count, generator)
        seen, azimuth = varied(self.looks[looked], self.azimuth[items + looked], generator)
        return Lesson(
            torch.cat([self.data.inputs[picked, ground], seen]),
            self.data.grids[picked],
            self.kind[torch.cat([picked, items + looked])],
            torch.cat([self.azimuth[picked], azimuth]),
        )

    def loss(self, lesson: Lesson) -> dict[str, Float[Tensor, ""]]:
        """``loss`` and its terms ``views``, ``kind`` and ``heading``."""
        embedding = self.encoder(self.seen(lesson.pictures)).image_embeds
        views = self.readout.views_loss(embedding[: len(lesson.grids)], lesson.grids.float())
        kind, heading = self.readout.kind_and_heading_losses(embedding, lesson.kind, lesson.azimuth)
        loss = views + self.config.heading * heading + self.config.kind * kind
        return {"loss": loss, "views": views, "kind": kind, "heading": heading}


def train_vision(
    task: VisionTask, seed: int, out: Path, accelerator: Accelerator, until: float, compiled: bool = False
) -> bool:
    """The vision encoder alone, resumed as the other stages; whether all steps are done."""
    modules, loss = {"vision_encoder": task.encoder, "readout": task.readout}, maybe_compiled(task.loss, compiled)

    def loss_of(draw: Draw) -> dict[str, Tensor]:
        return loss(task.draw(draw.generator(task.device)))

    with learning(modules):
        stage = Stage("vision", out, seed, until=until, again=AGAIN)
        return optimise(stage, modules, loss_of, task.config.optimise, accelerator)
