"""The UNet's stage of the tiny model's recipe: it learns to denoise six views at once, and where words are true."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.backends.text import prompt_rows, rows_at_end
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.maps import view_maps
from keyorbit.geometry.views import Layout
from keyorbit.storage.journal import Action
from keyorbit.training.optimise import Draw, Stage, Watch, learning, optimise
from keyorbit.training.schedule import OptimiseConfig
from keyorbit.training.step import alphas, place_schedule, velocity
from tiny_model.compiling import maybe_compiled
from tiny_model.grounding import Phrases, Places, draw_phrases, grounding_loss
from tiny_model.reading import RowReader
from tiny_model.teacher import Teacher
from tiny_model.texts import Captions, Texts, different
from tiny_model.training_data import AGAIN, Encoded, Stock, VisionInput
from tiny_model.vision import Lesson, VisionTask

_CLEAR, _COARSE = 300, 600  # timesteps below the first show small parts; those from the second on only the whole
# Of the time that is to be filled, with the rate at its full height: the first steps take longer than the last fifth's.
_FULL_RATE = 0.77
_INPUT_SHARE = 0.15  # of the grounding loss's weight for the input picture: its one view has thrice the grid's noise


@dataclass(frozen=True)
class DenoisingConfig:
    """What the UNet and both encoders are shown, ``batch`` grids a step.

    ``coarse``: the share of steps at timesteps of 600 and more, where a sample's composition is decided. Their items
    have the picture alone, as in use, or, ``dropped``, nothing. In the other steps ``clear`` of the items are at
    timesteps below 300, where points are looked for, the rest anywhere below 600. Of these items ``dropped`` have no
    condition at all, ``text_only`` a caption and no picture, ``told`` both; the rest have the picture alone. Without
    its picture the model has to find "the front left leg" by words, and that is what the tokens live on.
    ``grounding``: the weight of the loss that ties the tokens of ``phrases`` phrases an item to the places that they
    name, see :mod:`tiny_model.grounding`; coarse steps have none, as nothing can be found there.
    """

    batch: int = 6
    coarse: float = 0.5
    clear: float = 0.5
    dropped: float = 0.1
    text_only: float = 0.2
    told: float = 0.3
    grounding: float = 0.2
    phrases: int = 8
    optimise: OptimiseConfig = field(default_factory=lambda: OptimiseConfig(20000, 5e-4))


@dataclass(frozen=True, eq=False)
class Said:
    """Token numbers of texts; where: which of them each item has, or None where the texts are the items'."""

    ids: Int[Tensor, "text position"]
    where: Int[Tensor, " item"] | None


@dataclass(frozen=True, eq=False)
class Sought:
    """Phrases about items, as the text encoder reads them, and what their pictures show: see :class:`Places`.

    named: False for an item whose parts have no names, a mesh: nothing is true of it, and it does not count.
    """

    said: Said
    phrases: Phrases
    part: UInt8[Tensor, "item view side side"]
    position: UInt8[Tensor, "item view side side 3"]
    named: Bool[Tensor, " item"]


@dataclass(frozen=True, eq=False)
class Shown:
    """What one step shows.

    pictures: the inputs, as ``latents`` of the VAE too; pictured: whether the UNet is shown them. grids: the views'
    latents. prompts: the captions. sought: None in a coarse step. lesson: what the vision encoder sees beside.
    known: whether a teacher knows the item; None without one.
    """

    pictures: UInt8[Tensor, "item size size 3"]
    latents: Float[Tensor, "item channel condition_height condition_width"]
    pictured: Bool[Tensor, " item"]
    grids: Float[Tensor, "item channel height width"]
    noise: Float[Tensor, "item channel height width"]
    latent_noise: Float[Tensor, "item channel condition_height condition_width"]
    timestep: Int[Tensor, " item"]
    prompts: Said
    sought: Sought | None
    lesson: Lesson | None
    known: Bool[Tensor, " item"] | None


class DenoisingTask:
    """What a step shows, :meth:`draw`, and its :meth:`loss`; all of it where the backend is, without a look at a value.

    Args:
        stock: draws of ``data``.
        data: on the backend's device, as ``places``.
        vision: what the vision encoder goes on learning beside; without it, it learns from the UNet alone.
        fixed: each text is encoded as often as it is said, so that all steps have the same shapes; else once.
        teacher: whose predictions are the target on what it knows.
    """

    def __init__(
        self,
        config: DenoisingConfig,
        stock: Stock,
        data: Encoded,
        places: Places,
        vision: VisionTask | None,
        backend: Zero123PlusBackend,
        fixed: bool,
        teacher: Teacher | None = None,
    ) -> None:
        self.config, self.data, self.places = config, data, places
        self.vision, self.backend, self.fixed = vision, backend, fixed
        self.device = backend.device
        self.stock, self.teacher = stock, teacher
        self.seen = VisionInput(backend)
        self.captions = Captions.numbered(data.captions, backend.parts.tokenizer).to(self.device)
        phrases = places.phrases()  # some are the same: the "front" of a seat, and a "front seat"
        self.phrases = Texts.of(phrases, backend.parts.tokenizer, whole=False).to(self.device)
        self.text_of_phrase = self.phrases.numbers_of(phrases).to(self.device)
        self.end_of_text: int = backend.parts.tokenizer.eos_token_id
        self.ramp = torch.tensor(backend.parts.ramping_coefficients)[:, None].to(self.device)
        place_schedule(backend.parts.scheduler, self.device)
        self.blank = backend.empty_condition(1).latent.detach()
        self.reader = RowReader(backend.unet)
        self.shares = {
            False: torch.tensor([config.dropped, config.text_only, config.told]).cumsum(0).to(self.device),
            True: torch.tensor([config.dropped, 0.0, 0.0]).cumsum(0).to(self.device),
        }

    def draw(self, draw: Draw) -> Shown:
        """Draw a step. On the CPU all numbers come from one generator: those of earlier versions of the recipe."""
        config, data, count, device = self.config, self.data, self.config.batch, self.device
        lesson = None
        if self.vision is not None:  # other items than the UNet has
            lesson = self.vision.draw(replace(draw, seed=draw.seed + 1).generator(device))
        # What the host has to know is drawn there.
        host = draw.generator()
        generator = host if device.type == "cpu" else draw.generator(device)
        picked = self.stock.draw(count, generator)
        ground = torch.randint(2, (count,), generator=generator, device=device)
        coarse = bool(torch.rand((), generator=host) < config.coarse)
        kind = torch.bucketize(torch.rand(count, generator=generator, device=device), self.shares[coarse])
        prompts = self._prompts(picked, (kind == 1) | (kind == 2), coarse, generator)
        grids, latents = data.grids[picked].float(), data.conditions[picked, ground].float()
        noises = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=host)))
        noise = torch.randn(grids.shape, generator=noises, device=device)
        latent_noise = torch.randn(latents.shape, generator=noises, device=device)
        timestep = timesteps(config, coarse, count, generator, device)
        sought = None if coarse else self._sought(picked, generator)
        return Shown(
            data.inputs[picked, ground],
            latents,
            kind >= 2,
            grids,
            noise,
            latent_noise,
            timestep,
            prompts,
            sought,
            lesson,
            None if self.teacher is None else self.teacher.knows[self.stock.kind_of(picked)],
        )

    def loss(self, shown: Shown) -> dict[str, Float[Tensor, ""]]:
        """``loss`` and its terms: of denoising, of grounding where phrases are sought, of the lesson."""
        terms = self._denoising(shown)
        if self.vision is None or shown.lesson is None:
            return terms
        seen = self.vision.loss(shown.lesson)
        return {**terms, "loss": terms["loss"] + seen["loss"], "kind": seen["kind"], "heading": seen["heading"]}

    def _denoising(self, shown: Shown) -> dict[str, Float[Tensor, ""]]:
        backend, parts = self.backend, self.backend.parts
        context = self._context(backend, shown)
        condition = torch.where(shown.pictured[:, None, None, None], shown.latents, self.blank)
        noised = backend.add_noise(shown.grids, shown.noise, shown.timestep)
        alpha = alphas(parts.scheduler, shown.timestep)
        target = velocity(shown.grids, shown.noise, alpha)
        sought = shown.sought
        if sought is not None:
            rows = _of_each(rows_at_end(parts.text_encoder, sought.said.ids, self.end_of_text), sought.said)
            self.reader.read(rearrange(rows, "(i p) c -> i p c", i=len(context)))
        predicted = backend.denoise(noised, shown.timestep, context, condition, shown.latent_noise)
        denoising, terms = self._squares(shown, predicted.float(), target, noised, condition)
        if sought is None:
            return {"loss": denoising, **{f"coarse {name}": value for name, value in terms.items()}}
        on_input, on_grid = self._grounding(sought, condition, noised)
        signal = alpha.flatten().sqrt() * sought.named  # in noise nothing can be found
        pictured_signal = signal * shown.pictured
        grounding = (on_grid * signal).sum() / signal.sum().clamp_min(1e-6)
        on_input = (on_input * pictured_signal).sum() / pictured_signal.sum().clamp_min(1e-6)
        loss = denoising + self.config.grounding * (grounding + _INPUT_SHARE * on_input)
        return {"loss": loss, **terms, "grounding": grounding, "input grounding": on_input}

    def _context(self, backend: Zero123PlusBackend, shown: Shown) -> Float[Tensor, "item row channel"]:
        parts = backend.parts
        text = _of_each(prompt_rows(parts.text_encoder, shown.prompts.ids), shown.prompts)
        embedding = parts.vision_encoder(self.seen(shown.pictures)).image_embeds
        # As the backend adds it, with coefficients that are where they are used.
        found: Tensor = text + self.ramp * (embedding * shown.pictured[:, None])[:, None, :]
        return found

    def _squares(
        self, shown: Shown, predicted: Tensor, target: Tensor, noised: Tensor, condition: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of denoising and, to tell, its terms: of what was added, and of what the teacher predicts."""
        if self.teacher is None or shown.known is None:
            denoising = F.mse_loss(predicted, target)
            return denoising, {"denoising": denoising}
        with torch.no_grad():
            taught = self.teacher.backend.denoise(
                noised, shown.timestep, self._context(self.teacher.backend, shown), condition, shown.latent_noise
            )
        known = shown.known
        target = torch.where(known[:, None, None, None], taught.float(), target)
        squares = (predicted - target).square().mean((1, 2, 3))
        loss = (squares * torch.where(known, self.teacher.weight, 1.0)).mean()
        shares = {"denoising": ~known, "taught": known}
        return loss, {name: (squares * of).sum() / of.sum().clamp_min(1) for name, of in shares.items()}

    def _grounding(self, sought: Sought, condition: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The grounding loss of each item in the input picture, and in the six views; of what was just read."""
        truth = sought.phrases.truth(sought.part, sought.position)
        side = truth.shape[-1] // 2
        by_condition, by_grid = self.reader.take(_size(condition), _size(grid))
        in_input = view_maps(by_condition, Layout(1, 1), (side, side))
        in_views = view_maps(by_grid, self.backend.layout, (side, side))
        return grounding_loss(in_input, truth[:, :, :1]), grounding_loss(in_views, truth[:, :, 1:])

    def _prompts(
        self, picked: Int[Tensor, " item"], told: Bool[Tensor, " item"], coarse: bool, generator: torch.Generator
    ) -> Said:
        number, texts = self.captions.draw(picked, told, generator), self.captions.texts
        if coarse:  # nobody is told anything
            return Said(texts.ids[:1], torch.zeros_like(number))
        return Said(texts.ids[number], None) if self.fixed else _once(texts, number, trimmed=False)

    def _sought(self, picked: Int[Tensor, " item"], generator: torch.Generator) -> Sought:
        phrases = draw_phrases(self.places, picked, self.config.phrases, generator)
        number, texts = self.text_of_phrase[phrases.number.flatten()], self.phrases
        said = Said(texts.ids[number], None) if self.fixed else _once(texts, number, trimmed=True)
        return Sought(
            said, phrases, self.places.part[picked], self.places.position[picked], self.places.named()[picked]
        )


def train_denoising(
    task: DenoisingTask,
    seed: int,
    out: Path,
    accelerator: Accelerator,
    until: float,
    watch: Watch,
    compiled: bool = False,
    fill: bool = False,
) -> bool:
    """v-prediction on the whole grid, with and without the picture, with and without a caption; and grounding.

    Args:
        fill: do as many steps as there is time for until ``until``, the last fifth of them with the rate falling; how
            long a step takes need not be known. A run that is resumed goes on at the full rate first, and the fifth is
            one of the steps that are done from then on.
        watch: as in :func:`~keyorbit.training.optimise.optimise`; the models are in evaluation mode then.
        compiled: see :func:`~tiny_model.compiling.maybe_compiled`; the task is ``fixed`` then.

    Returns:
        Whether all steps are done.
    """
    parts, plan = task.backend.parts, task.config.optimise
    modules = {name: getattr(parts, name) for name in ("unet", "text_encoder", "vision_encoder")}
    if task.vision is not None:
        modules["readout"] = task.vision.readout
        # It has learned before, at twice this rate and with a cool-down.
        plan = replace(plan, rates=dict.fromkeys(("vision_encoder", "readout"), plan.rate / 2))
    loss = maybe_compiled(task.loss, compiled)

    def look(step: int) -> Action | None:
        for module in modules.values():
            module.eval()
        write = watch(step)
        for module in modules.values():
            module.train()
        return write

    here = range(0)

    def loss_of(draw: Draw) -> dict[str, Tensor]:
        nonlocal here
        here = range(here.start if here else draw.step, draw.step + 1)
        return loss(task.draw(draw))

    def run(plan: OptimiseConfig, until: float) -> bool:
        stage = Stage("unet", out, seed, until=until, watched=("probe",), again=AGAIN)
        with learning(modules):
            return optimise(stage, modules, loss_of, plan, accelerator, look)

    with task.reader:
        return filled(run, plan, until, lambda: here) if fill else run(plan, until)


def filled(
    run: Callable[[OptimiseConfig, float], bool], plan: OptimiseConfig, until: float, here: Callable[[], range]
) -> bool:
    """Run with the rate at its full height, then as many steps more as its fall takes.

    Args:
        run: runs a plan until a time, from where it was.
        plan: with more steps than there is time for.
        here: the steps that were done in this call; a run that is resumed has done others before.
    """
    now = time.monotonic()
    run(plan, now + _FULL_RATE * (until - now))
    if not (steps := here()):
        return run(plan, until)
    fall = round(len(steps) * plan.cooldown / (1 - plan.cooldown))
    total = steps.stop + fall
    return run(replace(plan, steps=total, cooldown=fall / total), until)


def _once(texts: Texts, numbers: Int[Tensor, " item"], trimmed: bool) -> Said:
    """Each text once, ``trimmed`` to the longest of these; on the CPU."""
    kept, where = different(numbers)
    ids = texts.ids[kept]
    return Said(ids[:, : int(texts.lengths[kept].max())] if trimmed else ids, where)


def _size(latent: Tensor) -> tuple[int, int]:
    return latent.shape[-2], latent.shape[-1]


def _of_each(rows: Tensor, said: Said) -> Tensor:
    return rows if said.where is None else rows[said.where]


def timesteps(
    config: DenoisingConfig, coarse: bool, count: int, generator: torch.Generator, device: torch.device
) -> Int[Tensor, " count"]:
    """Those of the items of a step that is coarse or not, see :class:`DenoisingConfig`; drawn on the device."""
    if coarse:
        return torch.randint(_COARSE, 1000, (count,), generator=generator, device=device)
    clear = torch.rand(count, generator=generator, device=device) < config.clear
    highest = torch.where(clear, _CLEAR, _COARSE)
    return (torch.rand(count, generator=generator, device=device) * highest).long()
