"""The choices of a training, and the files that it writes. It imports no library: the command line reads it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from keyorbit.errors import InputError
from keyorbit.storage.outputs import OutputKind, check_output, check_run

Trained = Literal["tokens", "lora", "full"]
Tracker = Literal["none", "tensorboard", "trackio", "wandb"]
Precision = Literal["no", "bf16", "fp16"]

NAME = "train"  # of the checkpoint and of its line in the log
SETTINGS = "config.toml"
DIGITS = "[0-9]" * 7  # of a step, in the names of files
MODEL, LORA = OutputKind("trained model"), OutputKind("trained LoRA")
WRITTEN = {"model": MODEL, "lora": LORA}  # folders that a finished run has below its own
PROJECT = "keyorbit"
# What TensorBoard writes below a folder of that name; the others write elsewhere.
TRACKED = ("*events.out.tfevents.*", "*hparams.yml")
RUN = OutputKind(
    "training run",
    (
        f"{NAME}.safetensors",
        SETTINGS,
        "log.jsonl",
        f"samples_{DIGITS}.png",
        "tokens.safetensors",
        "run.json",
        f"{NAME}/{NAME}_{DIGITS}.safetensors",  # earlier checkpoints
        *(f"{name}/" for name in WRITTEN),
        *(f"{PROJECT}/{name}" for name in TRACKED),
    ),
    f"{NAME}.safetensors",
)


def check_tracker(name: str) -> None:
    """Raise InputError where the package of the tracker is not installed; ``none`` needs none."""
    if name != "none" and find_spec(name) is None:
        raise InputError(f"the tracker {name} needs a package of that name: pip install {name}, or give none")


def check_place(out: Path, resume: bool, overwrite: bool) -> None:
    """Raise an error unless a training run, and its model at the end, can be written into a folder.

    Raises:
        InputError: as :func:`keyorbit.storage.outputs.check_run`, or there are somebody else's files where the model is
            to be written.
    """
    check_run(out, RUN, resume, overwrite)
    for name, kind in WRITTEN.items():
        check_output(out / name, kind, overwrite=True)
