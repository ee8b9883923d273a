"""Trained weights are saved as a model folder that knows what it was."""

import json

import pytest
import torch

from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.geometry.rigs import rig
from keyorbit.training.weights import save_model


@pytest.mark.parametrize(
    ("name", "layout"), [("v1.1", None), ("instantmesh", "2x3"), ("mvdream", "4x1"), ("a file", "2x2")]
)
def test_a_saved_model_keeps_the_views_that_were_chosen(name, layout, model_folder, tmp_path):
    (tmp_path / "a file").write_text(json.dumps(rig("mvdream").cameras.to_dict()))
    chosen = load_backend(model_folder, rig=tmp_path / name if name == "a file" else name, layout=layout)
    save_model(chosen, tmp_path / "saved")
    (tmp_path / "a file").unlink()
    saved = load_backend(tmp_path / "saved")
    assert saved.layout == chosen.layout
    assert torch.equal(saved.cameras.world_to_camera, chosen.cameras.world_to_camera)
    assert torch.equal(saved.cameras.intrinsics, chosen.cameras.intrinsics)
