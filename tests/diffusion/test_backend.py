"""The Zero123++ backend against a plain re-derivation of the published pipeline."""

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.counting import a_step_of
from helpers.models import save_controlnet
from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.sampling import (
    NOISE_STEPS,
    ancestral_sample,
    ancestral_scheduler,
    ancestral_steps,
    unit_normal,
)
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.errors import InputError
from keyorbit.objects.pictures import on_grey
from oracles import zero123plus as oracle


def picture(seed=0, size=(20, 20), channels=3):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, channels), dtype=np.uint8))


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def controlled(model_folder, tmp_path_factory):
    """A backend with a ControlNet that has something to say."""
    return load_backend(model_folder, controlnet=save_controlnet(model_folder, tmp_path_factory.mktemp("controlnet")))


CALLS = {
    "one": {},
    "two per prompt": {"num_images_per_prompt": 2},
    "two pictures, two each": {"pictures": 2, "num_images_per_prompt": 2},
    "no guidance": {"guidance": 1.0},
    "prompts": {"prompts": "a red chair", "negative_prompts": "a dog"},
    "another size": {"height": 96, "width": 48},
    "five steps": {"steps": 5},
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("with_control", [False, True], ids=["", "controlnet"])
def test_generation_equals_the_published_call(backend, controlled, call, with_control):
    options = {"steps": 4, "guidance": 4.0, "height": 48, "width": 32, **call}
    pictures = [picture(i) for i in range(options.pop("pictures", 1))]
    height, width = options["height"], options["width"]
    control = {}
    if with_control:
        backend = controlled
        depth = [picture(50 + i, (height, width)) for i in range(len(pictures))]
        options |= {"depth_images": depth, "conditioning_scale": 0.75}
        pixels = torch.from_numpy(np.stack([np.asarray(d) for d in depth])).permute(0, 3, 1, 2) / 255 * 2 - 1
        control = {"controlnet": backend.controlnet, "control_pixels": pixels, "scale": 0.75}
    latents = oracle.sample(
        backend.parts,
        pictures,
        seeded(),
        options["steps"],
        options["guidance"],
        backend.latent_size(height, width),
        options.get("num_images_per_prompt", 1),
        options.get("prompts", ""),
        options.get("negative_prompts", ""),
        **control,
    )
    theirs = oracle.decode(backend.parts, latents)
    ours = backend.generate(pictures, seeded(), **options)
    assert ours.shape == theirs.shape == (len(latents), 3, height, width)
    assert (ours - theirs).abs().max() <= 1e-5
    # Latents reach 4 and more, so the tolerance of 1e-5 is of their size where that is above 1.
    found = backend.generate(pictures, seeded(), **options, decode=False)
    torch.testing.assert_close(found, latents, atol=1e-5, rtol=1e-5)


def as_published(backend, pictures, steps, guidance=4.0):
    """Latents of the published loop after ``torch.manual_seed(3)``."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        condition = backend.encode_condition(pictures, torch.default_generator)
        condition = backend.empty_condition(len(pictures), torch.default_generator).join(condition)
        start = torch.randn(len(pictures), 4, 24, 16).to(backend.dtype)
        scheduler = ancestral_scheduler(backend.parts.scheduler.config, steps, backend.device)
        return oracle.sample_by_the_library(backend.unet, scheduler, condition, start, guidance)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_costs_no_more_than_in_the_published_loop(model_folder, dtype):
    """Operations on the device, and waits for it: there are none."""
    model = load_backend(model_folder, dtype=dtype)
    if dtype == "float32":
        ours = model.generate(picture(), seeded(), 4, decode=False)
        torch.testing.assert_close(ours, as_published(model, [picture()], 4), atol=2e-5, rtol=1e-5)
    ours, waits, _ = a_step_of(lambda steps: model.generate(picture(), seeded(), steps, decode=False))
    theirs, their_waits, _ = a_step_of(lambda steps: as_published(model, [picture()], steps))
    # Ours draws on the CPU: that is no operation of the device.
    assert ours.total() - ours["randn"] <= theirs.total()
    assert waits == 0
    assert their_waits == 2


def test_no_step_walks_through_the_unets_modules(backend, monkeypatch):
    """Which diffusers does to find a model's device and dtype: 2 ms each time, at full size."""
    walks, walk = [], torch.nn.Module.named_modules
    monkeypatch.setattr(
        torch.nn.Module, "named_modules", lambda *args, **given: walks.append(1) or walk(*args, **given)
    )
    counts = []
    for steps in (1, 4):
        walks.clear()
        backend.generate(picture(), seeded(), steps, decode=False)
        counts.append(len(walks))
    assert counts[0] == counts[1]
    assert backend.unet.device == backend.device
    assert backend.unet.dtype == backend.dtype
    assert len(walks) > counts[0]


@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
def test_a_step_has_the_schedulers_own_bits(backend, prediction):
    config = dict(backend.parts.scheduler.config) | {"prediction_type": prediction}
    scheduler, theirs = (
        ancestral_scheduler(type(backend.parts.scheduler).from_config(config).config, 7, torch.device("cpu"))
        for _ in range(2)
    )
    draws, start = seeded(1), torch.randn(2, 4, 6, 4, generator=seeded(0))
    noises = ((torch.zeros(()), torch.randn(2, 4, 6, 4, generator=draws)) for _ in range(7))
    ours = ancestral_sample(scheduler, start, lambda latents, t, _: (latents * t / 1000).sin(), noises)
    latents, draws = start * theirs.init_noise_sigma, seeded(1)
    for t in theirs.timesteps:
        prediction = (theirs.scale_model_input(latents, t) * t / 1000).sin()
        latents = theirs.step(prediction, t, latents, generator=draws).prev_sample
    assert torch.equal(ours, latents)


def test_a_model_that_predicts_something_else_is_refused(backend):
    with pytest.raises(InputError, match="'sample': it must be epsilon or v_prediction"):
        ancestral_steps(torch.tensor([2.0, 1.0, 0.0]), "sample")


@pytest.mark.parametrize("options", [{}, {"guidance": 1.0}, {"num_images_per_prompt": 2}], ids=str)
def test_a_picture_with_its_own_generator_does_not_depend_on_its_neighbours(backend, options):
    pictures = [picture(i) for i in range(3)]
    together = backend.generate(pictures, [seeded(i) for i in range(3)], steps=3, **options)
    alone = [backend.generate(one, seeded(i), steps=3, **options) for i, one in enumerate(pictures)]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=0)
    one = backend.generate(pictures[1], [seeded(1)], steps=3, **options)
    assert torch.equal(one, alone[1])
    with pytest.raises(InputError, match="2 generators for 3 pictures"):
        backend.generate(pictures, [seeded(), seeded()], steps=1)


def test_noise_that_is_moved_together_is_drawn_step_by_step(backend):
    """More steps than are drawn at once: the shares of one generator follow each other as in a loop."""
    steps = NOISE_STEPS + 2
    found = backend.generate(picture(), seeded(), steps, decode=False)
    torch.testing.assert_close(found, as_published(backend, [picture()], steps), atol=1e-4, rtol=1e-4)


def test_noise_of_several_generators_is_that_of_each():
    halves = unit_normal((4, 2, 3, 5), [seeded(0), seeded(1)], parts=2)
    for i in range(2):
        assert torch.equal(halves[i::2], torch.randn(2, 2, 3, 5, generator=seeded(i)))


def test_same_seed_same_pixels_and_the_global_generator_is_left_alone(backend):
    state = torch.get_rng_state()
    first, again, other = (
        backend.generate([picture()], torch.Generator().manual_seed(seed), steps=2) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


def sixteen_tokens(backend):
    return 3 * torch.randn(16, backend.unet.config.cross_attention_dim, generator=seeded(9))


@pytest.mark.parametrize("with_control", [False, True], ids=["", "controlnet"])
def test_isolated_tokens_leave_the_whole_loop_bit_identical_and_joint_ones_do_not(backend, controlled, with_control):
    model = controlled if with_control else backend
    options = {"steps": 3, "num_images_per_prompt": 2, "decode": False}
    if with_control:
        options["depth_images"] = picture(8, (48, 32))
    tokens = sixteen_tokens(model)
    bare = model.generate(picture(), seeded(), **options)
    with capture_attention(model.unet) as record:
        isolated = model.generate(picture(), seeded(), tokens=tokens, **options)
        assert record.layers("grid")[0].token_logits.shape[-1] == 16
        assert record.layers("condition")[0].token_logits.shape[-1] == 16
    with capture_attention(model.unet, mode="joint"):
        joint = model.generate(picture(), seeded(), tokens=tokens, **options)
    assert torch.equal(isolated, bare)
    assert not torch.allclose(joint, bare, atol=1e-3)
    assert torch.equal(joint, model.generate(picture(), seeded(), tokens=tokens, **options))


def test_joint_rows_reach_keys_and_values_of_every_layer_in_both_passes(backend):
    seen, handles = {}, []
    for name in cross_attention_layers(backend.unet):
        for projection in ("to_k", "to_v"):
            module = backend.unet.get_submodule(f"{name}.{projection}")
            rows = seen.setdefault((name, projection), [])
            handles.append(module.register_forward_hook(lambda m, args, out, rows=rows: rows.append(out.shape[1])))
    with capture_attention(backend.unet, layers="mid_block.*", passes=("grid",), mode="joint"):
        backend.generate(picture(), seeded(), steps=1, tokens=sixteen_tokens(backend))
    for handle in handles:
        handle.remove()
    for key, rows in seen.items():
        assert rows == [93] * 2, key


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_generates_the_same_picture_roughly(model_folder, backend, dtype):
    half = load_backend(model_folder, dtype=dtype)
    rough = half.generate(picture(), seeded(), steps=3, tokens=sixteen_tokens(half))
    exact = backend.generate(picture(), seeded(), steps=3, tokens=sixteen_tokens(backend))
    assert rough.isfinite().all()
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.1 * exact.std()


def test_who_watches_sees_the_views_become_what_they_are(backend):
    seen = []
    watched = backend.generate(picture(), seeded(), steps=3, watch=lambda done, _, look: seen.append((done, look())))
    assert torch.equal(watched, backend.generate(picture(), seeded(), steps=3))
    assert [done for done, _ in seen] == [1, 2, 3]
    away = [float((look - watched).abs().mean()) for _, look in seen]
    assert away[0] > away[1] > 1e-4 > away[2]


def test_progress_counts_every_step(backend):
    calls = []
    backend.generate(picture(), seeded(), steps=3, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("steps", [1, 28, 61, 1000])
def test_the_schedule_has_the_steps_asked_for(backend, steps):
    scheduler = ancestral_scheduler(backend.parts.scheduler.config, steps, torch.device("cpu"))
    sigmas, timesteps = oracle.sigmas_and_timesteps(backend.parts.scheduler.config, steps)
    assert scheduler.timesteps.tolist() == timesteps
    torch.testing.assert_close(scheduler.sigmas, torch.tensor(sigmas), rtol=1e-4, atol=1e-6)


def test_the_schedule_is_trailing_whatever_the_folder_says(backend):
    config = (
        type(backend.parts.scheduler).from_config(backend.parts.scheduler.config, timestep_spacing="leading").config
    )
    assert ancestral_scheduler(config, 4, torch.device("cpu")).timesteps.tolist() == [999, 749, 499, 249]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": []}, "at least one picture"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt"),
        ({"steps": 0}, "steps must be 1 to 1000, not 0"),
        ({"steps": 1001}, "steps must be 1 to 1000"),
        ({"height": 50}, "50 pixels high and 32 wide .* multiple of 6 "),
        ({"width": 0}, "does not divide"),
        ({"prompts": ["a", "b"]}, "2 prompts for 1 pictures"),
        ({"negative_prompts": ["a", "b"]}, "2 prompts for 1 pictures"),
        ({"tokens": torch.zeros(2, 5)}, "width 5"),
        ({"depth_images": picture(0, (48, 32))}, "need a ControlNet"),
        ({"images": [Image.new("I", (9, 9))]}, "mode I, whose range is not known"),
    ],
)
def test_what_cannot_be_generated_is_refused(backend, options, words):
    with pytest.raises(InputError, match=words):
        backend.generate(**{"images": picture(), "generator": seeded(), "steps": 1, **options})


def test_control_pictures_are_refused_or_shared(controlled):
    with pytest.raises(InputError, match="32x46 pixels does not fit a grid of 32x48"):
        controlled.generate(picture(), seeded(), steps=1, depth_images=picture(0, (46, 32)))
    several = [picture(i) for i in range(3)]
    with pytest.raises(InputError, match="2 depth images for 3 pictures"):
        controlled.generate(several, seeded(), steps=1, depth_images=[picture(0, (48, 32))] * 2)
    with pytest.raises(InputError, match="depth image of mode I;16 does not have 8 bits a channel: scale"):
        controlled.generate(several, seeded(), steps=1, depth_images=Image.new("I;16", (32, 48)))
    depth = picture(4, (48, 32), channels=4)
    shared = controlled.generate(several, seeded(), steps=1, depth_images=depth)
    each = controlled.generate(several, seeded(), steps=1, depth_images=[on_grey(depth)] * 3)
    torch.testing.assert_close(shared, each, atol=1e-5, rtol=0)
    without = controlled.generate(several, seeded(), steps=1)
    assert (shared - without).abs().max() > 1e-3


def test_condition_noise_is_the_schedulers(backend, generator):
    latent, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    for i in range(7):
        scheduler = type(backend.parts.scheduler).from_config(backend.parts.scheduler.config)
        scheduler.set_timesteps(7)
        t = scheduler.timesteps[i]
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
