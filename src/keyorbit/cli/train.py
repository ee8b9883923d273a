"""``keyorbit train``: novel views and keypoints together."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from keyorbit.cli.inputs import given_paths, named_paths
from keyorbit.cli.options import (
    DataArgument,
    DeterministicOption,
    ForceOption,
    LayoutOption,
    ModelOption,
    OverwriteOption,
    RigOption,
    UnetOption,
    base_settings,
    changed,
    check_model_options,
    whole_numbers,
)
from keyorbit.cli.telling import JsonOption, tell_json
from keyorbit.cli.terminal import console, progress
from keyorbit.diffusion.choices import Mode
from keyorbit.diffusion.paths import tokens_file
from keyorbit.discovery.ranges import Rate, Weight
from keyorbit.objects.sources import object_sources
from keyorbit.storage.files import write_json
from keyorbit.training.choices import SETTINGS, Precision, Tracker, Trained, check_place, check_tracker
from keyorbit.training.config import TrainConfig
from keyorbit.values import Amount, Count, Seed, check_value


def train_command(
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    model: ModelOption = "tiny",
    tokens: Annotated[
        str | None, typer.Option(help="How many, or a run or tokens file to start from; default 16.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of settings; options win over it. With --resume the run's own.")
    ] = None,
    trained: Annotated[str | None, typer.Option("--train", help="tokens, lora or full."), Trained] = None,
    keypoint: Annotated[
        float | None, typer.Option(help="Times the keypoint losses' weights; 0 for none."), Weight
    ] = None,
    equivariance: Annotated[float | None, typer.Option(help="The equivariance loss's weight."), Weight] = None,
    steps: Annotated[int | None, typer.Option(help="Optimisation steps."), Amount] = None,
    batch: Annotated[int | None, typer.Option(help="Objects in a forward pass."), Count] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes in a step."), Count] = None,
    unet_rate: Annotated[float | None, typer.Option(help="Learning rate of LoRA or the UNet."), Rate] = None,
    token_rate: Annotated[float | None, typer.Option(help="Learning rate of the tokens."), Rate] = None,
    mode: Annotated[str | None, typer.Option(help="joint or isolated."), Mode] = None,
    precision: Annotated[str | None, typer.Option(help="no, bf16 or fp16."), Precision] = None,
    checkpointing: Annotated[bool | None, typer.Option(help="Less memory for more time.")] = None,
    tracker: Annotated[str | None, typer.Option(help="none, tensorboard, trackio or wandb."), Tracker] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints."), Count] = None,
    sample_every: Annotated[int | None, typer.Option(help="Steps between sheets of views; 0 for none."), Amount] = None,
    seed: Annotated[int | None, typer.Option(help="Of tokens, noise and batches."), Seed] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where a run stopped, or on to more --steps.")] = False,
    overwrite: OverwriteOption = False,
    json_file: JsonOption = None,
    force: ForceOption = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Leave the GPU alone.")] = False,
    deterministic: DeterministicOption = False,
    unet: UnetOption = None,
    rig: RigOption = None,
    layout: LayoutOption = None,
) -> None:
    """Train novel views and keypoints together, from one forward; also under 'accelerate launch -m keyorbit train'.

    The objects of DATA have their views.
    """
    start_from, count = _tokens_or_number(tokens)
    view_choice = check_model_options(model, unet, rig, layout)
    check_place(out, resume, overwrite)
    base = base_settings(TrainConfig, config, out / SETTINGS, resume)
    given = {
        "train": trained, "num_tokens": count, "steps": steps, "batch": batch, "accumulate": accumulate,
        "unet_rate": unet_rate, "token_rate": token_rate, "mode": mode, "precision": precision,
        "checkpointing": checkpointing, "tracker": tracker, "save_every": save_every, "sample_every": sample_every,
        "seed": seed,
    }  # fmt: skip
    warped = changed(base.terms.equivariance, weight=equivariance)
    settings = changed(base, terms=changed(base.terms, keypoint=keypoint, equivariance=warped), **given)
    check_tracker(settings.tracker)
    paths = given_paths(data)
    object_sources(paths)

    from keyorbit.cli.work.loading import load_model, load_tokens, quiet_libraries
    from keyorbit.cli.work.several import given_objects
    from keyorbit.determinism import compute_deterministically
    from keyorbit.diffusion.backends.loading import views_of_tokens
    from keyorbit.training.train import make_accelerator, train

    quiet_libraries()
    start = None if start_from is None else load_tokens(start_from)
    objects = given_objects(paths)
    if deterministic:
        compute_deterministically()
    accelerator = make_accelerator(settings, out, cpu)
    if start is not None:
        view_choice = views_of_tokens(start.info, view_choice)
    backend = load_model(model, str(accelerator.device), "float32", unet, view_choice)  # trained weights stay so
    began = time.monotonic()
    with progress(accelerator.is_main_process) as tick:
        found = train(
            backend, objects, settings, out, start, resume, accelerator,
            lambda i, n, terms: tick("train", i, n, {k: v for k, v in terms.items() if k in ("nvs", "keypoint")}),
            overwrite, force,
        )  # fmt: skip
    if not accelerator.is_main_process:
        return
    about: dict[str, Any] = {
        "format": "keyorbit-training-1",
        "data": named_paths(paths),
        "objects": len(objects),
        "model": model,
    }
    about |= {"seconds": time.monotonic() - began, "config": asdict(settings)}
    write_json(out / "run.json", about)
    made: dict[str, Any] = {"out": str(out), "tokens": str(out / "tokens.safetensors"), "keypoints": len(found)}
    tell_json(json_file, "train", made | {"run": about})
    console.print(f"{len(found)} tokens trained on {len(objects)} objects: {out / 'tokens.safetensors'}")


def _tokens_or_number(given: str | None) -> tuple[Path | None, int | None]:
    """``--tokens`` of training: the file of tokens to start from, or how many fresh ones."""
    if given is None:
        return None, None
    if given.lstrip("+-").isdecimal():
        (count,) = whole_numbers("--tokens", given)
        check_value("--tokens", count, Count)
        return None, count
    return tokens_file(Path(given)), None
