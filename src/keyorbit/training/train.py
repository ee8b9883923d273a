"""Joint training: novel views and keypoints from one forward pass. Tokens, a LoRA or the whole UNet learn."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin

from keyorbit.budget import check_budget
from keyorbit.diffusion.attention import TEXT_TOKENS
from keyorbit.diffusion.backends.base import Backend, check_backend
from keyorbit.diffusion.backends.fingerprint import fingerprint
from keyorbit.diffusion.backends.loading import source_folder
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.model_facts import views_told
from keyorbit.diffusion.recording import layer_outlines
from keyorbit.diffusion.tokens import Tokens
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.diffusion.weights import check_weights
from keyorbit.discovery.initial import tokens_info
from keyorbit.errors import InputError
from keyorbit.objects.dataset import Objects
from keyorbit.objects.fingerprint import mark_of, object_fingerprint
from keyorbit.objects.given import check_given
from keyorbit.ranks import launched, start_ranks
from keyorbit.storage.files import write_bytes, write_text
from keyorbit.storage.journal import Action
from keyorbit.storage.lock import in_use
from keyorbit.storage.outputs import begin_output
from keyorbit.storage.settings import to_toml
from keyorbit.training.batch import check_objects
from keyorbit.training.choices import NAME, PROJECT, RUN, SETTINGS, check_place, check_tracker
from keyorbit.training.config import TrainConfig
from keyorbit.training.optimise import Report, Stage, optimise
from keyorbit.training.sheets import png_bytes, sample_sheet
from keyorbit.training.step import TrainingStep
from keyorbit.training.weights import learning, save_lora, save_model
from keyorbit.values import as_path, check_kind

log = logging.getLogger(__name__)

_FEW_TOKENS, _FEW_OBJECTS = 256, 16
# Objects by which a resumed run knows its data again, at most.
_MARKED = 8


def make_accelerator(config: TrainConfig, out: Path, cpu: bool = False) -> Accelerator:
    """Make an Accelerator with these settings. ``accelerate launch`` chooses processes and devices.

    Raises:
        InputError: the tracker's package is missing, the precision is not available here, or as :func:`start_ranks`.
    """
    check_tracker(config.tracker)
    # Without a GPU, Accelerate lets each process do the whole job unless ``cpu`` is set.
    cpu = cpu or (launched() > 1 and not (torch.cuda.is_available() or torch.xpu.is_available()))
    if cpu:
        start_ranks("cpu")
    try:
        return Accelerator(
            cpu=cpu,
            mixed_precision=config.precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=config.accumulate),
            log_with=None if config.tracker == "none" else config.tracker,
            project_dir=out,
        )
    except ValueError as error:
        raise InputError(f"precision {config.precision} is not to be had here: {error}") from error


def train(
    backend: Backend,
    objects: Objects,
    config: TrainConfig,
    out: str | Path,
    tokens: Tokens | None = None,
    resume: bool = False,
    accelerator: Accelerator | None = None,
    report: Report | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> Tokens:
    """Train on objects with known views; return the tokens. All files are written below ``out``.

    They are tokens.safetensors; model/, a whole model folder, if the UNet learned; lora/, the same as a LoRA of
    diffusers and peft; config.toml; log.jsonl; samples_*.png; and train.safetensors, from which ``resume`` continues
    and ends bit-identical to a run that was never stopped. Afterwards the backend's UNet holds the trained weights.

    Args:
        backend: a Zero123++ model with v-prediction, in float32.
        objects: with views, as many as the model has.
        config: the settings.
        out: folder of the run.
        tokens: tokens to start from. Default None: random ones.
        resume: continue the run in ``out``, with the same settings; only ``steps`` may differ, and those that change
            nothing of what is learned. Default False.
        accelerator: from :func:`make_accelerator`; the backend has to be on its device. Default None: one is made.
        report: called as ``report(done, steps, terms)`` after each step, with the means of the last line of the log.
        overwrite: replace an earlier run in ``out``, at the new one's first checkpoint; other files are never touched.
            Default False.
        force: start from ``tokens`` of another model knowingly, with a warning in the log. Default False.

    Raises:
        InputError: the model is not a Zero123++ with v-prediction, an object lacks views, the tokens belong to another
            model, there is a run in ``out`` already and neither ``resume`` nor ``overwrite``, there are other files,
            another process writes there, or the loss is not finite: the message says what was kept.
    """
    check_backend(backend)
    check_given(objects)
    check_kind("config", config, TrainConfig, "a TrainConfig")
    check_kind("tokens", tokens, Tokens | None, "what keyorbit.discover returns, or Tokens.load reads")
    out = as_path(out, "out")
    model = _checked(backend, objects, tokens, force)
    accelerator = accelerator or make_accelerator(config, out, cpu=model.device.type == "cpu")
    with in_use(out, accelerator.is_main_process):
        if accelerator.is_main_process:
            check_place(out, resume, overwrite)
            _check_source(model, out, overwrite)
        return _train(model, objects, config, _Place(out, resume, overwrite), tokens, accelerator, report)


@dataclass(frozen=True)
class _Place:
    """Where a run is kept, see :func:`train`."""

    out: Path
    resume: bool
    overwrite: bool

    def begin(self, config: TrainConfig, lengthened: bool) -> None:
        """Take the folder, with its marker and settings, before the first checkpoint is written."""
        begin_output(self.out, RUN, self.overwrite, self.resume, checked=True)
        # A resumed run has them, unless it goes on to another number of steps.
        if lengthened or not (self.out / f"{NAME}.safetensors").exists():
            write_text(self.out / SETTINGS, to_toml(config))


def _train(
    model: Zero123PlusBackend,
    objects: Objects,
    config: TrainConfig,
    place: _Place,
    tokens: Tokens | None,
    accelerator: Accelerator,
    report: Report | None,
) -> Tokens:
    out = place.out
    reading = config.reading(model, tokens)
    _check_memory(model, config, config.num_tokens if tokens is None else len(tokens))
    learned = _start(model, config, tokens).to(model.device)
    settings = (
        config.settings()
        | {
            "model": model.fingerprint,
            "objects": len(objects),
            "objects_mark": _some_mark(objects),
            "tokens": _digest(learned),
            "processes": accelerator.num_processes,
        }
        | views_told(model.cameras_of, model.layout, model.cameras)
    )
    what = (
        f"{len(learned)} tokens" if config.train == "tokens" else f"{len(learned)} tokens and the UNet ({config.train})"
    )
    sizes = f"{len(objects)} objects, {config.steps} steps of {config.batch} x {config.accumulate}"
    log.info("training %s on %s, with %d processes, on %s", what, sizes, accelerator.num_processes, model.device)

    def begin(lengthened: bool) -> None:
        place.begin(config, lengthened)
        if config.tracker != "none":
            accelerator.init_trackers(PROJECT, plain_values(asdict(config)))

    with learning(model, config):
        step = TrainingStep(model, objects, learned, config, reading)
        watch = _sheets(model, objects, config, out, learned, accelerator)
        with step.recording():
            optimise(
                Stage(
                    NAME,
                    out,
                    config.seed,
                    settings,
                    begin=begin,
                    resume=place.resume,
                    older={"model": model.older_fingerprint, "objects_mark": lambda: None},
                ),
                {"tokens": learned, "unet": model.unet},
                step,
                config.optimise_config(),
                accelerator,
                watch=watch,
                report=report,
            )
        if accelerator.is_main_process and config.train == "lora":
            save_lora(model.unet, out / "lora")
    start = TokensInfo() if tokens is None else tokens.info
    # Helpers are dropped: they did not learn with the tokens and the UNet.
    places = start.places[: len(learned)]
    info = tokens_info(model, reading)
    learned.info = replace(info, seed=config.seed, pairs=start.pairs, places=places, form=start.form)
    if accelerator.is_main_process:
        if config.train != "tokens":
            save_model(model, out / "model")
            folder = (out / "model").resolve()
            # The folder itself records its layout and its cameras.
            mark = fingerprint(folder)
            own = replace(learned.info, model=str(folder), model_fingerprint=mark)
            learned.info = replace(own, cameras_of="", layout="", cameras_mark="")
        learned.save(out / "tokens.safetensors")
    accelerator.end_training()
    return learned.cpu()


def _some_mark(objects: Objects) -> str:
    """A short hash of a few objects with their masks, spread over all: there may be very many to read."""
    count = len(objects)
    some = dict.fromkeys(place * count // _MARKED for place in range(_MARKED)) if count else {}
    return mark_of(object_fingerprint(objects[number]) for number in some)


def _checked(backend: Backend, objects: Objects, tokens: Tokens | None, force: bool) -> Zero123PlusBackend:
    if not isinstance(backend, Zero123PlusBackend):
        raise InputError(f"{backend.name} has a single view: joint training is for Zero123++ models")
    if backend.parts.scheduler.config.prediction_type != "v_prediction":
        raise InputError(f"{backend.name} does not predict v, and training knows no other target")
    if backend.dtype != torch.float32:
        raise InputError(
            'load the model with dtype="float32": training keeps its weights so, and its precision sets what the UNet '
            "computes in"
        )
    check_objects(objects, backend)
    if tokens is not None:
        check_weights(tokens.info, backend, force)
    return backend


def _check_memory(model: Zero123PlusBackend, config: TrainConfig, tokens: int) -> None:
    """Raise InputError where tokens and batch need more memory than there is, at the least."""
    if tokens <= _FEW_TOKENS and config.batch <= _FEW_OBJECTS:
        return  # the model itself takes more
    outlines = layer_outlines(model, "*", "attention")
    scores = sum(one.query.shape[1] * one.query.shape[2] for one in outlines) * (TEXT_TOKENS + tokens)
    remedy = "ask for fewer tokens, or a smaller batch"
    needs = {
        # Weights, gradients, two moments and an average.
        f"{tokens} tokens": (5 * 4 * tokens * int(model.unet.config.cross_attention_dim), remedy),
        f"the attention of {config.batch} objects to {tokens} tokens": (2 * 4 * config.batch * scores, remedy),
    }
    check_budget(needs, model.device)


def _check_source(model: Zero123PlusBackend, out: Path, overwrite: bool) -> None:
    """Raise InputError where the model itself would be removed."""
    if overwrite and source_folder(model.name).resolve().is_relative_to(out.resolve()):
        raise InputError(f"the model lies in {out}, which is to be overwritten: give another folder for the run")


def _start(backend: Zero123PlusBackend, config: TrainConfig, tokens: Tokens | None) -> Tokens:
    if tokens is not None:
        return Tokens(tokens.embedding)
    generator = torch.Generator().manual_seed(config.seed)
    return Tokens.initialise(backend.text_statistics(generator), config.num_tokens, generator)


def _sheets(
    backend: Zero123PlusBackend,
    objects: Objects,
    config: TrainConfig,
    out: Path,
    tokens: Tokens,
    accelerator: Accelerator,
) -> Callable[[int], Action] | None:
    """Return a function that makes and then writes the first two objects' true views above generated ones, or None."""
    if not config.sample_every or not accelerator.is_main_process:
        return None
    shown = [objects[i] for i in range(min(2, len(objects)))]

    def watch(step: int) -> Action:
        sheet = sample_sheet(backend, shown, config.sample_steps, tokens.embedding.detach())
        return partial(write_bytes, out / f"samples_{step:07d}.png", png_bytes(sheet))

    return watch


def _digest(tokens: Tokens) -> str:
    """Return a text that differs for different tokens."""
    return hashlib.sha256(json.dumps(tokens.embedding.tolist()).encode()).hexdigest()[:16]


def plain_values(values: Mapping[str, Any], under: str = "") -> dict[str, int | float | str | bool]:
    """Flatten nested settings to one level of ``outer.inner``, with types that every tracker accepts."""
    flat: dict[str, int | float | str | bool] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= plain_values(value, f"{under}{key}.")
        else:
            flat[under + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
