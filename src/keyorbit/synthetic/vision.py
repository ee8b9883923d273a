"""What the vision encoder learns before the UNet has to read it: to tell from one picture what the six views show.

At the highest timesteps the condition latent is as noisy as the grid, so all that a sample can know of its input there
is the image embedding. Zero123++ has CLIP's, which saw 400 million pictures; the UNet's own loss cannot teach ours from
the few thousand pictures that are shown at those timesteps.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from keyorbit.backends.zero123plus import Zero123PlusBackend
from keyorbit.synthetic.samples import SampleSpec, input_azimuth
from keyorbit.synthetic.training_data import Encoded, draw_items, kinds, seen_by_vision
from keyorbit.training.optimise import Draw, OptimiseConfig, optimise

_HIDDEN, _POOLED = 512, 2


@dataclass(frozen=True)
class VisionConfig:
    """``batch`` pictures a step; ``heading`` and ``kind`` weigh these losses beside the views' squares (about 0.2)."""

    batch: int = 32
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

    def losses(
        self,
        embedding: Float[Tensor, "item width"],
        grids: Float[Tensor, "item channel height width"],
        kind: Int[Tensor, " item"],
        azimuth: Float[Tensor, " item"],
    ) -> dict[str, Tensor]:
        """Squares of the views, cross-entropy of the kind, squares of the heading's cosine and sine."""
        views = self.views(embedding).unflatten(1, self.latent)
        found = rearrange(self.heading(embedding), "i (k d) -> i k d", d=2)[torch.arange(len(kind)), kind]
        return {
            "views": F.mse_loss(views, F.avg_pool2d(grids, _POOLED)),
            "kind": F.cross_entropy(self.kind(embedding), kind),
            "heading": F.mse_loss(found, torch.stack([azimuth.cos(), azimuth.sin()], dim=-1)),
        }


def train_vision(
    config: VisionConfig,
    categories: tuple[str, ...],
    seed: int,
    data: Encoded,
    specs: list[SampleSpec],
    backend: Zero123PlusBackend,
    out: Path,
    accelerator: Accelerator,
    until: float,
) -> bool:
    """The vision encoder alone, resumed as the other stages; whether all steps are done.

    categories: as they are drawn, see :func:`~keyorbit.synthetic.training_data.draw_items`. specs: those of ``data``.
    """
    encoder, device = backend.parts.vision_encoder, backend.device
    names = kinds(categories)
    kind = torch.tensor([names.index(spec.category) for spec in specs])
    azimuth = torch.tensor([input_azimuth(spec) for spec in specs]).deg2rad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        readout = ReadOut(encoder.config.projection_dim, data.grids.shape[1:], len(names)).to(device)

    def loss_of(draw: Draw) -> dict[str, Tensor]:
        generator = draw.generator()
        picked = draw_items(categories, len(data.grids), config.batch, generator)
        ground = torch.randint(2, (config.batch,), generator=generator)
        embedding = encoder(seen_by_vision(data.inputs[picked, ground], backend)).image_embeds
        terms = readout.losses(
            embedding, data.grids[picked].to(device).float(), kind[picked].to(device), azimuth[picked].to(device)
        )
        return {"loss": terms["views"] + config.heading * terms["heading"] + config.kind * terms["kind"], **terms}

    modules = {"vision_encoder": encoder, "readout": readout}
    for module in modules.values():
        module.requires_grad_(True).train()
    done = optimise("vision", modules, loss_of, config.optimise, out, accelerator, seed, until)
    encoder.requires_grad_(False).eval()
    return done
