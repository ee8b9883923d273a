"""Train the tiny Zero123++ from nothing: ``python -m tiny_model.train --out runs/tiny``.

Stages, each resumed where it stopped: render the objects, train the VAE, train the vision encoder alone, train the UNet
with both encoders. ``--minutes`` ends a slice in time; the same command goes on from there.
"""

import json
import logging
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate import Accelerator
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.errors import InputError
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.storage.files import write_bytes, write_text
from keyorbit.storage.journal import Action, append_line
from keyorbit.storage.lock import in_use
from keyorbit.storage.outputs import check_output, replaced_folder
from keyorbit.synthetic.objects import CATEGORIES
from keyorbit.training.choices import MODEL
from keyorbit.training.optimise import Draw, Stage, Watch, learning, optimise
from keyorbit.training.schedule import OptimiseConfig
from keyorbit.training.sheets import png_bytes, sample_sheet
from keyorbit.values import Count, Share, check_fields, check_value
from tiny_model.carry import pack, unpack
from tiny_model.command import run
from tiny_model.denoising import DenoisingConfig, DenoisingTask, train_denoising
from tiny_model.grounding import render_places
from tiny_model.meshes import MeshSpec, mesh_specs
from tiny_model.model import TinyConfig, init_from, make_tiny, save_folder
from tiny_model.preflight import check
from tiny_model.probe import ProbeConfig, ProbeObjects, landmark_probe, probe_objects
from tiny_model.teacher import Teacher, TeacherConfig
from tiny_model.training_data import (
    AGAIN,
    Meshes,
    Rendered,
    Stock,
    encode_training_set,
    kinds,
    load_meshes,
    render_meshes,
    render_training_set,
    together,
    training_specs,
)
from tiny_model.vision import VisionConfig, VisionTask, render_looks, train_vision

log = logging.getLogger(__name__)
# What is rendered once, in the folder of a run.
DATA, MESHES, PLACES, LOOKS = (f"{name}.safetensors" for name in ("data", "meshes", "places", "looks"))
TRAINED_CATEGORIES = ("chair", "car", "aeroplane", "animal")


@dataclass(frozen=True)
class MeshConfig:
    """Meshes among the training objects, see :mod:`tiny_model.meshes`.

    ``views``: renderings of each kind; ``share``: of these among the objects that a step shows; ``kinds``: names of
    folders, by default all.
    """

    folder: str | None = None
    views: Count = 600
    share: Share = 0.25
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    def specs(self, seed: int, size: int) -> list[MeshSpec]:
        """What to render; nothing without a folder."""
        return mesh_specs(Path(self.folder), self.views, seed, size, self.kinds) if self.folder else []


@dataclass(frozen=True)
class TrainTinyConfig:
    """The recipe. objects: of each category; one that is named twice is drawn twice as often.

    ``variety``: the share of objects in other colours and lights than data sets have, see :mod:`tiny_model.variety`.
    ``compiled``: the losses of the vision encoder's and the UNet's stages, see :mod:`tiny_model.compiling`.
    """

    categories: tuple[str, ...] = TRAINED_CATEGORIES
    objects: int = 3000
    seed: int = 0
    vae: OptimiseConfig = field(default_factory=lambda: OptimiseConfig(2000, 2e-3))
    vae_batch: int = 16
    vision: VisionConfig = field(default_factory=VisionConfig)
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    workers: int = 2
    compiled: bool = False
    variety: Share = 0.0
    meshes: MeshConfig = field(default_factory=MeshConfig)
    teacher: TeacherConfig | None = None

    def __post_init__(self) -> None:
        check_value("variety", self.variety, Share)


def train(
    config: TrainTinyConfig,
    out: Path,
    folder: Path,
    model: TinyConfig | None = None,
    init: Path | None = None,
    minutes: float | None = None,
    accelerator: Accelerator | None = None,
    fill: bool = False,
) -> bool:
    """All stages; the averaged model of the last step done is written to ``folder``. Call it again to resume.

    Args:
        init: a model folder whose weights of the same name and shape are the start, instead of random ones.
        minutes: stop in time, saved; the objects are rendered whole all the same.
        fill: the UNet takes as many steps as there is time for, see :func:`~tiny_model.denoising.train_denoising`.

    Returns:
        Whether the plan is done.

    Raises:
        InputError: another process writes ``out``, it holds the data of another recipe, or a loss is not finite; the
            message says which checkpoint was kept.
    """
    with in_use(out):
        return _train(config, out, folder, model or TinyConfig(), init, minutes, accelerator, fill)


def _train(
    config: TrainTinyConfig,
    out: Path,
    folder: Path,
    model: TinyConfig,
    init: Path | None,
    minutes: float | None,
    accelerator: Accelerator | None,
    fill: bool,
) -> bool:
    until = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    accelerator = accelerator or Accelerator(cpu=not torch.cuda.is_available())
    check_output(folder, MODEL, overwrite=True)
    out.mkdir(parents=True, exist_ok=True)
    data, meshes = _pictures(config, out, model.view_size)
    shown = meshes.shown if meshes is not None else []
    parts = make_tiny(model, config.seed)
    if init is not None:
        init_from(parts, init)
    for module in (parts.vae, parts.unet, parts.text_encoder, parts.vision_encoder):
        module.to(accelerator.device)
    if parts.unet.conv_in.weight.is_cuda:  # the order in which its convolutions compute in half precision
        for module in (parts.vae, parts.unet):
            module.to(memory_format=torch.channels_last)
    cameras = zero123plus_cameras("v1.2").to(accelerator.device)
    backend = Zero123PlusBackend(parts, Layout(3, 2), cameras, model.view_size, "tiny in training")
    done = train_vae(config, data, backend, out, accelerator, until)
    if done:
        encoded = encode_training_set(data, backend, out / "encoded.safetensors").to(accelerator.device)
        specs = training_specs(config.categories, config.objects, config.seed, model.view_size // 2)
        stock = Stock(config.categories, config.objects, accelerator.device, len(shown), config.meshes.share)
        vision = None
        if config.vision.optimise.steps:
            looks = out / LOOKS
            vision = VisionTask(
                config.vision,
                config.categories,
                config.seed,
                stock,
                encoded,
                specs,
                shown,
                backend,
                looks,
                config.workers,
            )
            done = train_vision(vision, config.seed, out, accelerator, until, config.compiled)
        if done:
            places = render_places(specs, config.workers, out / PLACES)
            if meshes is not None:
                places = places.with_meshes(meshes.position, meshes.on, [kind for kind, _ in meshes.shown])
            places = places.to(accelerator.device)
            fixed = config.compiled or accelerator.device.type != "cpu"
            teacher = None
            if config.teacher is not None:
                teacher = Teacher.of(config.teacher, kinds(config.categories), accelerator.device)
            task = DenoisingTask(config.denoising, stock, encoded, places, vision, backend, fixed, teacher)
            watch = _watch(config, backend, out)
            done = train_denoising(task, config.seed, out, accelerator, until, watch, config.compiled, fill)
        with replaced_folder(folder, MODEL, overwrite=True) as partial:
            save_folder(parts, partial, model.view_size)
        log.info("the model is in %s", folder)
    return done


def _pictures(config: TrainTinyConfig, out: Path, size: int) -> tuple[Rendered, Meshes | None]:
    """The pictures of all training objects, and the meshes among them; those stand behind the others."""
    data = render_training_set(
        config.categories, config.objects, config.seed, size, config.workers, out / DATA, config.variety
    )
    if specs := config.meshes.specs(config.seed, size):
        render_meshes(specs, config.workers, out / MESHES)
    if not (out / MESHES).is_file():
        return data, None
    meshes = load_meshes(out / MESHES)  # rendered here, or carried here
    return together(data, meshes.pictures), meshes


def render_all(config: TrainTinyConfig, out: Path, size: int) -> list[Path]:
    """Render all that a training will show, and nothing else; return the files, which another machine can begin with.

    Raises:
        InputError: ``out`` holds the data of another recipe, another process writes it, or a mesh cannot be read.
    """
    with in_use(out):
        out.mkdir(parents=True, exist_ok=True)
        _pictures(config, out, size)
        specs = training_specs(config.categories, config.objects, config.seed, size // 2)
        render_places(specs, config.workers, out / PLACES)
        if config.vision.optimise.steps:
            looks = training_specs(config.categories, config.vision.looks, config.seed, size)
            render_looks(looks, config.workers, out / LOOKS)
    return [path for path in (out / name for name in (DATA, MESHES, PLACES, LOOKS)) if path.is_file()]


def train_vae(
    config: TrainTinyConfig,
    data: Rendered,
    backend: Zero123PlusBackend,
    out: Path,
    accelerator: Accelerator,
    until: float,
) -> bool:
    """Single views in, the same views out: squares and L1 on pixels, L1 on their gradients, and a little KL."""
    vae, device = backend.parts.vae, backend.device
    pictures = torch.cat([data.views.flatten(0, 1), data.inputs[:, 0]]).to(device)
    count = config.vae_batch

    def loss_of(draw: Draw) -> dict[str, Tensor]:
        generator = draw.generator(device)
        picked = torch.randint(len(pictures), (count,), generator=generator, device=device)
        images = _shown_to_vae(pictures[picked])
        distribution = vae.encode(images).latent_dist
        noise = torch.randn(distribution.mean.shape, generator=generator, device=device)
        restored = vae.decode(distribution.mean + distribution.std * noise).sample
        edges = sum(F.l1_loss(restored.diff(dim=d), images.diff(dim=d)) for d in (2, 3))
        kl = distribution.kl().mean() / images[0].numel()
        # Squares first of all: with L1 alone the colours of small parts come last.
        squares = F.mse_loss(restored, images)
        return {"loss": 5 * squares + F.l1_loss(restored, images) + edges + 1e-3 * kl, "mse": squares, "kl": kl}

    modules = {"vae": vae}
    with learning(modules):
        stage = Stage("vae", out, config.seed, until=until, again=AGAIN)
        done = optimise(stage, modules, loss_of, config.vae, accelerator)
    if not config.vae.steps:  # the factor of the model that it began from is the one that its UNet knows
        return done
    with torch.no_grad():
        sample = _shown_to_vae(pictures[:: max(1, len(pictures) // 512)])
        latents = vae.encode(sample).latent_dist.mean
    # Zero123++ multiplies scaled latents by 0.75; choose the factor that makes the UNet's input have spread 1.
    vae.register_to_config(scaling_factor=1 / (0.75 * float(latents.std())))
    return done


def _watch(config: TrainTinyConfig, backend: Zero123PlusBackend, out: Path) -> Watch:
    """The probe, every so often."""
    judged = {
        category: probe_objects(category, config.probe, backend.view_size, config.workers)
        for category in kinds(config.categories)
        if config.probe.every <= config.denoising.optimise.steps
    }

    def watch(step: int) -> Action | None:
        return _look(config, backend, judged, out, step) if step % config.probe.every == 0 else None

    return watch


def _look(
    config: TrainTinyConfig, backend: Zero123PlusBackend, judged: dict[str, ProbeObjects], out: Path, step: int
) -> Action:
    """The probe's figures for the log, and a sheet of generated views; returns what writes both."""
    found = {category: landmark_probe(backend, objects, config.probe) for category, objects in judged.items()}
    mean = sum(found.values()) / len(found)
    log.info("probe at step %d: PCK@0.1 %.3f %s", step, mean, json.dumps(found))
    shown = [thing for objects in judged.values() for thing in objects.test[: config.probe.samples]]
    sheet = png_bytes(sample_sheet(backend, shown, config.probe.sample_steps))

    def write() -> None:
        append_line(out / "log.jsonl", {"stage": "probe", "step": step, "mean": mean, **found})
        write_bytes(out / f"samples_{step:06d}.png", sheet)

    return write


def _shown_to_vae(pictures: Tensor) -> Tensor:
    """uint8 pictures [item height width 3] in the range in which the pipeline shows inputs and grids to the VAE."""
    return (rearrange(pictures, "i h w c -> i c h w").float() / 127.5 - 1) * (0.5 / 0.8)


def _smoke(config: TrainTinyConfig) -> TrainTinyConfig:
    few = OptimiseConfig(3, 1e-3, save_every=2, log_every=1)
    probe = ProbeConfig(every=3, train_objects=2, test_objects=2, steps=2, sample_steps=2)
    few_seen, few_grids = VisionConfig(4, looks=3, optimise=few), DenoisingConfig(2, optimise=few)
    return replace(
        config, objects=3, vae=few, vae_batch=4, vision=few_seen, denoising=few_grids, probe=probe, workers=1
    )


def main(
    out: Annotated[Path, typer.Option(help="Where data, checkpoints, samples and the log are kept.")],
    folder: Annotated[Path | None, typer.Option(help="Where the model goes; default OUT/model.")] = None,
    categories: Annotated[
        str, typer.Option(help="Kinds of objects, with commas; one named twice is drawn twice as often.")
    ] = ",".join(TRAINED_CATEGORIES),
    objects: Annotated[int, typer.Option(help="Objects of each kind.")] = TrainTinyConfig.objects,
    seed: int = 0,
    vae_steps: int = 2000,
    vision_steps: Annotated[
        int, typer.Option(help="Of the vision encoder alone; 0: it learns with the UNet only, at its rate.")
    ] = 15000,
    unet_steps: int = 20000,
    vision_batch: Annotated[
        int, typer.Option(help="Objects that the vision encoder sees a step, and as many looks.")
    ] = VisionConfig.batch,
    looks: Annotated[
        int, typer.Option(help="Objects of each kind of which the vision encoder alone sees a picture.")
    ] = VisionConfig.looks,
    unet_batch: int = DenoisingConfig.batch,
    unet_rate: float = 5e-4,
    grounding: Annotated[
        float, typer.Option(help="Weight of the loss that ties phrases to places.")
    ] = DenoisingConfig.grounding,
    coarse: Annotated[
        float, typer.Option(help="Share of the UNet's steps at timesteps of 600 and more.")
    ] = DenoisingConfig.coarse,
    clear: Annotated[
        float, typer.Option(help="Of its other steps' items, the share at timesteps below 300; the rest: below 600.")
    ] = DenoisingConfig.clear,
    init: Annotated[Path | None, typer.Option(help="A model folder to start from.")] = None,
    fine_attention: Annotated[
        bool, typer.Option(help="Attention at the finest level; it costs a third of a step.")
    ] = TinyConfig.fine_attention,
    minutes: Annotated[float | None, typer.Option(help="Stop in time; run the same command to go on.")] = None,
    fill: Annotated[
        bool, typer.Option(help="As many of the UNet's steps as --minutes allow; the rate falls in the last fifth.")
    ] = False,
    probe_every: Annotated[
        int, typer.Option(help="UNet steps between two probes, which take minutes on a CPU.")
    ] = 1000,
    save_every: Annotated[
        int, typer.Option(help="Steps between two checkpoints of 200 MB.")
    ] = OptimiseConfig.save_every,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16; bf16 on a GPU.")] = "no",
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the loss, on CUDA into CUDA graphs; the first steps take minutes."),
    ] = False,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
    variety: Annotated[
        float, typer.Option(help="Share of objects in other colours, lights and grounds than data sets have.")
    ] = 0.0,
    meshes: Annotated[
        Path | None, typer.Option(help="A folder of meshes, a folder each kind; a third of them is held out.")
    ] = None,
    mesh_kinds: Annotated[str | None, typer.Option(help="Kinds of meshes, with commas; default all.")] = None,
    mesh_views: Annotated[int, typer.Option(help="Renderings of each kind of mesh.")] = MeshConfig.views,
    mesh_share: Annotated[float, typer.Option(help="Share of meshes in what a step shows.")] = MeshConfig.share,
    teacher: Annotated[
        Path | None, typer.Option(help="A model that --taught are learned from, so that they are not forgotten.")
    ] = None,
    taught: Annotated[str, typer.Option(help="Kinds that the teacher knows, with commas.")] = ",".join(
        TRAINED_CATEGORIES
    ),
    vision_rate: Annotated[float, typer.Option(help="Learning rate of the vision encoder alone.")] = 1e-3,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    carry: Annotated[Path | None, typer.Option(help="Unpack the archives of this folder into OUT first.")] = None,
    back: Annotated[
        Path | None, typer.Option(help="Pack the model and the log into this folder at the end, in small parts.")
    ] = None,
    render_only: Annotated[
        bool, typer.Option(help="Render all objects, pack them into --back if it is given, and stop.")
    ] = False,
    only_check: Annotated[bool, typer.Option("--check", help="Say what is missing on this machine, and stop.")] = False,
    smoke: Annotated[bool, typer.Option(help="A few steps of everything, to see that it runs.")] = False,
) -> None:
    """Train the tiny Zero123++; run the same command again to resume."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(threads)
    names = tuple(categories.split(","))
    unknown = [name for name in names if name not in CATEGORIES]
    if unknown:
        raise InputError(f"no category {', '.join(unknown)}; known are: {', '.join(CATEGORIES)}")
    config = TrainTinyConfig(
        names,
        objects,
        seed,
        vae=OptimiseConfig(vae_steps, 2e-3),
        vision=VisionConfig(
            vision_batch, looks, optimise=OptimiseConfig(vision_steps, vision_rate, save_every=save_every)
        ),
        denoising=DenoisingConfig(
            unet_batch,
            coarse,
            clear,
            grounding=grounding,
            optimise=OptimiseConfig(unet_steps, unet_rate, save_every=save_every),
        ),
        probe=ProbeConfig(every=probe_every),
        workers=workers,
        compiled=compiled,
        variety=variety,
        meshes=MeshConfig(
            None if meshes is None else str(meshes),
            mesh_views,
            mesh_share,
            tuple(mesh_kinds.split(",") if mesh_kinds else ()),
        ),
        teacher=None if teacher is None else TeacherConfig(str(teacher), tuple(taught.split(","))),
    )
    config = _smoke(config) if smoke else config
    if carry is not None:
        log.info("carried: %s", ", ".join(unpack(carry, out)))
    # Which files a run makes if they are not there.
    files = [DATA, PLACES, *([MESHES] if meshes else []), *([LOOKS] if vision_steps else [])]
    check(out, files, device, init, meshes)
    if fill and minutes is None:
        raise InputError("--fill needs --minutes: the time that is to be filled")
    if only_check:
        sys.stdout.write("Nothing is missing.\n")
        return
    if render_only:
        made = render_all(config, out, TinyConfig.view_size)
        parts = pack("data", made, back) if back is not None else []
        total = sum(path.stat().st_size for path in parts)
        sys.stdout.write(f"Rendered: {', '.join(path.name for path in made)}; packed: {total / 2**20:.1f} MiB\n")
        return
    accelerator = Accelerator(mixed_precision=precision, cpu=device == "cpu" or not torch.cuda.is_available())
    out.mkdir(parents=True, exist_ok=True)
    model = TinyConfig(fine_attention=fine_attention)
    with in_use(out):
        note_config(out / "log.jsonl", config)
        folder = folder or out / "model"
        train(config, out, folder, model, init, minutes=minutes, accelerator=accelerator, fill=fill)
        if back is not None:
            pack("model", [path for path in (folder, out / "log.jsonl") if path.exists()], back)


def note_config(path: Path, config: TrainTinyConfig) -> None:
    """Write the settings into the log, unless its last ones are the same: a run goes on then, and it is one run."""
    line = json.dumps({"stage": "config", **asdict(config)}) + "\n"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1]  # without half a line of a process that was killed
    known = [old for old in whole.splitlines(keepends=True) if old.startswith('{"stage": "config"')]
    if known[-1:] != [line]:
        whole += line
    if whole != text:
        write_text(path, whole)


if __name__ == "__main__":
    run("train", main)
