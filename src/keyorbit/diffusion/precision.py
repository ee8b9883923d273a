"""Which type of numbers a model computes in: half precision where its heatmaps stay those of float32, by measurement.

On a GPU half precision is at least twice as fast and half as large; which type a model bears depends on its weights.
So the model is loaded in float32, shown pictures of smooth noise, and read with random tokens; then the same is done in
float16 and, if that will not do, in bfloat16. Compared are heatmaps as discovery makes them by default, by total
variation distance, relative to that of a flat map: the share of what the heatmaps say that is in another place. No way
of reading a place can see more of the difference than that: the expected position moves by at most this share of the
view's diagonal. Also compared is a picture that the VAE encodes and decodes, since some VAEs overflow in float16; their
``force_upcast`` does not tell, as it is true unless a model's file says otherwise.

The tolerances are small against what another draw of the noise does, which every recording has and no keypoint should
depend on: in the model that ships it moves 43 % of the heatmaps, float16 0.2 % and bfloat16 1.8 %
(docs/research-log.md).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from keyorbit.devices import has_bfloat16
from keyorbit.diffusion.backends.base import Precision
from keyorbit.diffusion.backends.stable_diffusion import StableDiffusionBackend
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.choices import MapKind
from keyorbit.diffusion.config import PrepareConfig, RecordConfig
from keyorbit.diffusion.maps import token_heatmaps
from keyorbit.diffusion.prepare import prepare
from keyorbit.diffusion.recording import record_prepared
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import memory_shortage
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.pictures import to_uint8

log = logging.getLogger(__name__)

# Tried in this order: float16 has three more bits of precision, bfloat16 the range of float32.
HALF_TYPES = ("float16", "bfloat16")
# Largest share of the heatmaps that may be in another place than in float32: on average, and of the worst of them.
MEAN_TOLERANCE = 0.03
WORST_TOLERANCE = 0.15
# Largest mean difference of a picture, 0…1, after the VAE.
PICTURE_TOLERANCE = 0.02
# Of discovery's heatmaps by default (DiscoverConfig.temperature).
TEMPERATURE = 0.01
NO_ROOM = "not compared with float32, for which the device's memory does not suffice"

Loaded = StableDiffusionBackend | Zero123PlusBackend
_TOKENS = 16
_COARSE = 8  # pixels of the noise that pictures are enlarged from


@dataclass(frozen=True)
class Probe:
    """What a model makes of the test input: heatmaps, and a picture after the VAE."""

    heatmaps: Float[Tensor, "version view token side side"]
    picture: Float[Tensor, "1 3 height width"]


@dataclass(frozen=True)
class Difference:
    """How far a probe is from that of float32; numbers that are not finite show as NaN, which no tolerance admits."""

    mean: float
    worst: float
    picture: float

    @property
    def tolerable(self) -> bool:
        """Whether all three are within their tolerances."""
        maps = self.mean <= MEAN_TOLERANCE and self.worst <= WORST_TOLERANCE
        return maps and self.picture <= PICTURE_TOLERANCE


def load_settled(load: Callable[[torch.dtype], Loaded]) -> Loaded:
    """The model that ``load`` loads in a given type, in the type that :func:`settle_precision` chooses.

    Where float32 does not fit the device it is loaded in the first type of half precision, and nothing is measured.
    """
    backend = None
    try:
        backend = load(torch.float32)
    except (RuntimeError, MemoryError) as error:
        if memory_shortage(error) is None:
            raise
    # Not above: an error that is being handled keeps all that was on the device.
    if backend is None:
        backend = load(getattr(torch, HALF_TYPES[0]))
        backend.precision = Precision(HALF_TYPES[0], reason=NO_ROOM)
    else:
        backend.precision = settle_precision(backend)
    return backend


def settle_precision(backend: Loaded, types: Sequence[str] = HALF_TYPES) -> Precision:
    """Cast a model, loaded in float32, to the first of these types that is tolerable; else it stays in float32.

    A type that the device does not compute in is left out. Where the device's memory does not suffice to compare, the
    model is cast to the first type all the same.
    """
    weights = _Weights(backend)
    known = [name for name in types if name != "bfloat16" or has_bfloat16(backend.device)]
    try:
        return _measured(backend, weights, known)
    except (RuntimeError, MemoryError) as error:
        if memory_shortage(error) is None:
            raise
    # Not above: an error that is being handled keeps all that was on the device.
    weights.replace(types[0])
    return Precision(types[0], reason=NO_ROOM)


def _measured(backend: Loaded, weights: "_Weights", types: Sequence[str]) -> Precision:
    tokens = probe_tokens(backend)
    reference = probe(backend, tokens)
    for name in types:
        weights.cast(name)
        try:
            found = difference(probe(backend, tokens), reference)
        except RuntimeError as error:
            if memory_shortage(error) is not None:
                raise
            log.info("%s is not to be had on %s: %s", name, backend.device, str(error).splitlines()[0])
            continue
        shares = f"maps {100 * found.mean:.2f} % from float32, the worst {100 * found.worst:.2f} %"
        log.info("%s: %s; a picture after the VAE %.2f %%", name, shares, 100 * found.picture)
        if found.tolerable:
            return Precision(name, found.mean, found.worst)
    weights.cast("float32")
    return Precision("float32", reason=f"no type of half precision has maps within {100 * MEAN_TOLERANCE:.0f} % of it")


@torch.no_grad()
def probe_tokens(backend: Loaded) -> Float[Tensor, "token width"]:
    """A few random tokens that look like the model's text, always the same ones."""
    rows = backend.text_statistics(torch.Generator().manual_seed(0))
    return Tokens.initialise(rows, _TOKENS, torch.Generator().manual_seed(1)).embedding.detach().to(backend.device)


@torch.no_grad()
def probe(backend: Loaded, tokens: Float[Tensor, "token width"], draw: int = 0) -> Probe:
    """What the model makes of smooth noise, always the same, at its own layers, timestep and size of the grid.

    ``draw`` numbers the noise that is added to it, as to whatever is recorded.
    """
    generator = torch.Generator().manual_seed(0)
    views = _smooth(backend.layout.num_views, backend.view_size, generator)
    picture = Image.fromarray(to_uint8(_smooth(1, backend.view_size, generator)[0]))
    # Masks are not looked at here; without them the views' outlines would be searched for.
    thing = ObjectViews("probe", picture, views, torch.ones_like(views[:, 0], dtype=torch.bool))
    kind: MapKind = "attention" if backend.cameras is None else "logits"
    prepare_config = PrepareConfig().settled(backend.default_timestep)
    prepared = prepare(thing, backend, prepare_config, torch.Generator().manual_seed(draw))[0]
    queries = record_prepared(backend, prepared, RecordConfig(backend.default_layers, kind, prepare_config))["grid"]
    side = 2 * backend.latent_size(backend.view_size, backend.view_size)[0]
    layers = queries.maps(tokens, slice(None), kind)
    heatmaps = token_heatmaps(layers, backend.layout, kind, side, TEMPERATURE)
    return Probe(heatmaps, backend.decode(backend.encode_images(views[:1])))


def difference(found: Probe, reference: Probe) -> Difference:
    """How far one is from the other, relative to what the reference's heatmaps say: their distance from a flat map."""
    flat = 1 / reference.heatmaps[0, 0, 0].numel()
    said = _elsewhere(reference.heatmaps, torch.full_like(reference.heatmaps, flat)).mean()
    moved = _elsewhere(found.heatmaps, reference.heatmaps) / said
    picture = (found.picture - reference.picture).abs().mean()
    return Difference(float(moved.mean()), float(moved.max()), float(picture))


def _elsewhere(
    first: Float[Tensor, "*map side side"], second: Float[Tensor, "*map side side"]
) -> Float[Tensor, "*map"]:
    """Total variation distance of heatmaps, 0…1."""
    return (first - second).abs().sum((-2, -1)) / 2


class _Weights:
    """The parameters and buffers of a model in float32, which it can be cast from again and again."""

    def __init__(self, backend: Loaded) -> None:
        parts = [part for part in vars(backend.parts).values() if isinstance(part, nn.Module)]
        tensors = [x for part in parts for x in (*part.parameters(), *part.buffers())]
        self.kept = [(x, x.data) for x in tensors if x.is_floating_point()]

    def cast(self, name: str) -> None:
        """Give the model its weights in the type of that name."""
        for x, weight in self.kept:
            x.data = weight.to(getattr(torch, name))

    def replace(self, name: str) -> None:
        """The same for good, one weight after the other, so that both are never there as a whole."""
        while self.kept:
            x, weight = self.kept.pop()
            x.data = weight.to(getattr(torch, name))


def _smooth(count: int, side: int, generator: torch.Generator) -> Float[Tensor, "count 3 {side} {side}"]:
    """Pictures of smooth coloured noise, 0…1."""
    coarse = torch.rand(count, 3, _COARSE, _COARSE, generator=generator)
    return F.interpolate(coarse, size=(side, side), mode="bilinear", antialias=True)
