"""A compiled step is the same step: each of its kinds is one function without a break, compiled once."""

import json
import os
import subprocess
import sys

import pytest

# In a process of its own: what checks types in these tests cannot be compiled.
SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from helpers.models import SMALL
from keyorbit.training.schedule import OptimiseConfig
from tiny_model.denoising import DenoisingConfig
from tiny_model.model import make_tiny, save_folder
from tiny_model.probe import ProbeConfig
from tiny_model.teacher import TeacherConfig
from tiny_model.train import TrainTinyConfig, train
from tiny_model.vision import VisionConfig

real, graphs, out = torch.compile, [], Path(sys.argv[1])

def run_as_it_is(graph, inputs):
    graphs.append(graph)
    return graph.forward

def compiled(loss, fullgraph, dynamic, mode):
    return real(loss, fullgraph=fullgraph, dynamic=dynamic, backend=run_as_it_is)

torch.compile = compiled
few = OptimiseConfig(2, 1e-3, save_every=4, log_every=1)
config = TrainTinyConfig(
    categories=("chair", "mug"), objects=2, vae=replace(few, steps=1), vae_batch=2, workers=1,
    vision=VisionConfig(2, looks=2, optimise=few), denoising=DenoisingConfig(2, optimise=replace(few, steps=8)),
    probe=ProbeConfig(every=4, train_objects=2, test_objects=2, steps=2, samples=1, sample_steps=1),
    teacher=TeacherConfig(str(out / "teacher"), ("mug",)),
)
model = replace(SMALL, unet_channels=(16,), heads=(2,))
save_folder(make_tiny(model, seed=1), out / "teacher", model.view_size)
for choice in (True, False):
    train(replace(config, compiled=choice), out / str(choice), out / "model", model)
print(json.dumps(len(graphs)))
"""


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["stage"] in ("vision", "unet")]


def test_every_kind_of_step_is_compiled_once_and_in_one_piece(tmp_path):
    """A break would be an error. Here the graphs run as they are; between the steps the probe uses the same UNet."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    words = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == 3  # the vision encoder's step; the UNet's, coarse and not
    assert losses(tmp_path / "True") == pytest.approx(losses(tmp_path / "False"), rel=1e-3)
