"""A teacher's predictions are the target on what it knows, and what was added to the views on everything else."""

import json
from dataclasses import replace

import pytest
import torch

from helpers.models import SMALL
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.errors import InputError
from keyorbit.training.optimise import Draw
from keyorbit.training.schedule import OptimiseConfig
from keyorbit.training.step import alphas, velocity
from tiny_model.denoising import DenoisingConfig, DenoisingTask
from tiny_model.grounding import render_places
from tiny_model.model import make_tiny, save_folder
from tiny_model.probe import ProbeConfig
from tiny_model.teacher import Teacher, TeacherConfig
from tiny_model.train import TrainTinyConfig, train
from tiny_model.training_data import Stock, encode_training_set, render_training_set, training_specs
from tiny_model.vision import VisionConfig

KINDS = ("chair", "mug")
HERE = torch.device("cpu")


def made_task(folder, model, teacher, coarse):
    backend = load_backend(model, "cpu", "float32")
    data = render_training_set(KINDS, 2, 0, SMALL.view_size, 1, folder / "data.safetensors")
    encoded = encode_training_set(data, backend, folder / "encoded.safetensors")
    places = render_places(training_specs(KINDS, 2, 0, SMALL.view_size // 2), 1, folder / "places.safetensors")
    known = Teacher.of(teacher, KINDS, HERE)
    config = DenoisingConfig(4, coarse=coarse)
    return DenoisingTask(config, Stock(KINDS, 2), encoded, places, None, backend, False, known)


@pytest.fixture
def model(tmp_path):
    save_folder(make_tiny(SMALL, seed=1), tmp_path / "model", SMALL.view_size)
    return tmp_path / "model"


@pytest.mark.parametrize("coarse", [0.0, 1.0])
def test_a_model_that_is_its_own_teacher_has_nothing_to_learn(tmp_path, model, coarse):
    """With and without a caption and a picture: the teacher is told and shown the same."""
    task = made_task(tmp_path, model, TeacherConfig(str(model), KINDS), coarse)
    with task.reader:
        for step in range(3):
            terms = task.loss(task.draw(Draw(0, step)))
            prefix = "coarse " if coarse else ""
            assert float(terms[f"{prefix}taught"]) < 1e-10
            assert float(terms[f"{prefix}denoising"]) == 0.0  # nothing else is shown


def test_squares_are_those_to_the_teacher_where_it_knows_the_kind(tmp_path, model, monkeypatch):
    """The oracle: a student that predicts zero, and a teacher that predicts a half."""
    task = made_task(tmp_path, model, TeacherConfig(str(model), ("mug",), weight=3.0), 1.0)
    monkeypatch.setattr(task.backend, "denoise", lambda noised, *rest: torch.zeros_like(noised))
    monkeypatch.setattr(task.teacher.backend, "denoise", lambda noised, *rest: torch.full_like(noised, 0.5))
    mixed = 0
    for step in range(6):
        shown = task.draw(Draw(0, step))
        target = velocity(shown.grids, shown.noise, alphas(task.backend.parts.scheduler, shown.timestep))
        squares = target.square().mean((1, 2, 3))
        known = shown.known.tolist()
        terms = task.loss(shown)
        each = [3.0 * 0.25 if knows else float(square) for knows, square in zip(known, squares, strict=True)]
        assert float(terms["loss"]) == pytest.approx(sum(each) / 4)
        if any(known) and not all(known):
            mixed += 1
            assert float(terms["coarse taught"]) == pytest.approx(0.25)
            assert float(terms["coarse denoising"]) == pytest.approx(float(squares[~shown.known].mean()))
    assert mixed  # both kinds in one step


def test_what_it_knows_is_told_by_the_number_of_the_item():
    """Three objects of each of two kinds in turn, then meshes, which it never knows."""
    stock = Stock(("chair", "mug", "mug"), 3, meshes=2, share=0.5)
    kind = stock.kind_of(torch.arange(8))
    assert kind.tolist() == [0, 1, 0, 1, 0, 1, 2, 2]


def test_the_recipe_with_a_teacher_and_its_kinds(tmp_path, model):
    few = OptimiseConfig(2, 1e-3, save_every=1, log_every=1)
    config = TrainTinyConfig(
        KINDS,
        2,
        vae=replace(few, steps=0),
        vision=VisionConfig(2, looks=2, optimise=replace(few, steps=0)),
        denoising=DenoisingConfig(2, coarse=0.0, optimise=few),
        probe=ProbeConfig(every=100),
        workers=1,
        teacher=TeacherConfig(str(model), KINDS),
    )
    assert train(config, tmp_path / "run", tmp_path / "out", SMALL, init=model)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["stage"] == "unet"]
    assert [line["step"] for line in steps] == [1, 2]
    assert steps[0]["taught"] < 1e-10  # it began as the teacher
    assert steps[1]["taught"] > 1e-10  # and has learned from the places of words
    with pytest.raises(InputError, match="boat, car is not among the categories"):
        Teacher.of(TeacherConfig(str(model), ("chair", "car", "boat")), KINDS, HERE)
    with pytest.raises(InputError, match="weight"):
        TeacherConfig(str(model), KINDS, weight=0.0)
