"""Stable Diffusion: one view, the picture itself; StableKeypoints' maps and objective; the whole way by command."""

import torch
from PIL import Image


def test_loads(stable_diffusion):
    b = stable_diffusion
    print(b.default_layers, b.view_size, b.encode_prompts(["a chair"]).shape)
