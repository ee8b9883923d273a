"""The Zero123++ backend against a plain re-derivation of the published pipeline."""

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.attention import capture_attention
from keyorbit.backends.zero123plus import on_grey
from keyorbit.errors import InputError
from oracles import zero123plus as oracle


def picture(seed=0, size=(20, 20)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))


@pytest.mark.parametrize("count", [1, 2])
def test_generation_equals_the_published_loop(backend, count):
    pictures = [picture(i) for i in range(count)]
    ours = backend.generate(pictures, torch.Generator().manual_seed(3), steps=4, guidance=4.0)
    theirs = oracle.sample(backend, pictures, torch.Generator().manual_seed(3), steps=4, guidance=4.0)
    assert ours.shape == (count, 3, *backend.grid_size)
    assert (ours - theirs).abs().max() <= 1e-5


def test_same_seed_same_pixels_and_the_global_generator_is_left_alone(backend):
    state = torch.get_rng_state()
    first, again, other = (
        backend.generate([picture()], torch.Generator().manual_seed(seed), steps=2) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_capture_does_not_change_what_is_generated(backend):
    bare = backend.generate([picture()], torch.Generator().manual_seed(1), steps=3)
    with capture_attention(backend.unet):
        captured = backend.generate([picture()], torch.Generator().manual_seed(1), steps=3)
    assert torch.equal(bare, captured)


def test_condition_noise_is_the_schedulers(backend, generator):
    scheduler = type(backend.parts.scheduler).from_config(backend.parts.scheduler.config)
    scheduler.set_timesteps(7)
    latent, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    for t in scheduler.timesteps:
        scheduler._step_index = None
        theirs = scheduler.scale_model_input(scheduler.add_noise(latent, noise, t.reshape(1)), t)
        torch.testing.assert_close(backend.add_noise(latent, noise, t.reshape(1)), theirs, atol=1e-5, rtol=1e-5)


def test_the_grid_pass_reads_the_condition(backend, generator):
    def out(latent):
        g = torch.Generator().manual_seed(0)
        noise = torch.randn(1, 4, 8, 8, generator=g)
        grid, context = torch.randn(1, 4, 24, 16, generator=g), torch.randn(1, 77, 16, generator=g)
        with torch.no_grad():
            return backend.denoise(grid, torch.tensor(100), context, latent, noise)

    assert not torch.equal(out(torch.zeros(1, 4, 8, 8)), out(torch.ones(1, 4, 8, 8)))


def test_encode_and_decode_scale_as_published(backend, generator):
    images = torch.rand(1, 3, *backend.grid_size, generator=generator)
    with torch.no_grad():
        mean = backend.parts.vae.encode((images * 2 - 1) * 0.625).latent_dist.mean
        latent = backend.encode_images(images)
        factor = backend.parts.vae.config.scaling_factor
        torch.testing.assert_close(latent, (mean * factor - 0.22) * 0.75)
        pixels = backend.parts.vae.decode(mean).sample * 1.6
        torch.testing.assert_close(backend.decode(latent), (pixels / 2 + 0.5).clamp(0, 1), atol=1e-5, rtol=0)


def test_a_latent_that_does_not_divide_is_refused(backend):
    with pytest.raises(InputError, match="25x16 does not divide into 3 rows x 2"):
        backend.denoise(
            torch.zeros(1, 4, 25, 16),
            torch.tensor(0),
            torch.zeros(1, 77, 16),
            torch.zeros(1, 4, 8, 8),
            torch.zeros(1, 4, 8, 8),
        )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_grey_127(mode):
    clear = Image.new("RGBA", (9, 9), (255, 0, 0, 0)).convert(mode)
    if mode == "P":
        clear = Image.new("P", (9, 9), 0)
        clear.info["transparency"] = 0
    assert on_grey(clear).getpixel((4, 4)) == (127, 127, 127)
    assert on_grey(Image.new("L", (9, 9), 80)).getpixel((0, 0)) == (80, 80, 80)
