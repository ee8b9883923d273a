"""Trained weights are saved as a model folder that knows what it was."""

import pytest
import torch

from keyorbit.diffusion.backends.known_cameras import camera_choices
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.training.weights import save_model


@pytest.mark.parametrize("name", camera_choices())
def test_a_saved_model_keeps_the_cameras_that_were_chosen(name, model_folder, tmp_path):
    chosen = load_backend(model_folder, cameras_of=name)
    save_model(chosen, tmp_path / "saved")
    saved = load_backend(tmp_path / "saved")
    assert torch.equal(saved.cameras.world_to_camera, chosen.cameras.world_to_camera)
    assert torch.equal(saved.cameras.intrinsics, chosen.cameras.intrinsics)
