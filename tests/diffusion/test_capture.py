"""Capture under half precision, autocast, compilation, LoRA and early exit; what it keeps, and what it costs."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.zero123plus import ReferenceAttention
from keyorbit.diffusion.captured import PASSES
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.maps import view_maps
from keyorbit.diffusion.prepare import Prepared
from keyorbit.diffusion.recording import record_passes
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from oracles import attention as oracle
from oracles import grids

K = 5
WIDTH = 16
CONDITION = (8, 8)
ONE_LEVEL = {
    "sample_size": 8,
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "layers_per_block": 1,
    "attention_head_dim": (2,),
    "cross_attention_dim": WIDTH,
    "norm_num_groups": 4,
    "use_linear_projection": True,
}


@pytest.fixture
def one_level():
    """A UNet with a layer on the way down, in the middle, and two on the way up; all at the latent's size."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**ONE_LEVEL).eval().requires_grad_(False)
    processors = {key: ReferenceAttention(key, value) for key, value in unet.attn_processors.items()}
    unet.set_attn_processor(processors)
    return unet


@pytest.fixture
def unet(backend):
    return copy.deepcopy(backend.unet)


def rows(count, batch=1, dtype=torch.float32):
    draw = torch.Generator().manual_seed(3)
    return torch.randn(batch, count, WIDTH, generator=draw).to(dtype)


def both_passes(unet, latent=(12, 8), context=None, batch=1):
    """The condition pass and the grid pass that reads it; returns the grid's prediction."""
    draw = torch.Generator().manual_seed(1)
    noised, grid = (torch.randn(batch, 4, *s, generator=draw).to(unet.dtype) for s in (CONDITION, latent))
    context = rows(77 + K, batch) if context is None else context
    timestep, reference = torch.tensor(300), {}
    unet(noised, timestep, context.to(unet.dtype), cross_attention_kwargs={"mode": "w", "reference": reference})
    kwargs = {"mode": "r", "reference": reference}
    return unet(grid, timestep, context.to(unet.dtype), cross_attention_kwargs=kwargs).sample


def agrees_with_the_oracle(unet, latent, mode, tolerance=1e-6):
    context = rows(77 + K)
    seen, handles = oracle.watch(unet)
    with capture_attention(unet, mode=mode) as record, torch.no_grad():
        both_passes(unet, latent, context)
    for handle in handles:
        handle.remove()
    recorded = record.layers("condition") + record.layers("grid")
    assert len(recorded) == len(seen) > 0
    with torch.no_grad():
        for layer, (name, module, hidden) in zip(recorded, seen, strict=True):
            assert layer.name == name
            assert layer.probabilities.dtype == layer.token_logits.dtype == torch.float32
            expected = oracle.maps(module, hidden, context.to(unet.dtype))
            torch.testing.assert_close(layer.probabilities, expected, atol=tolerance, rtol=0)
    return record


@pytest.mark.parametrize("mode", ["isolated", "joint"])
@pytest.mark.parametrize(
    ("latent", "grid"),
    [((8, 12), (2, 3)), ((8, 12), (1, 6)), ((12, 8), (3, 2)), ((12, 8), (1, 1)), ((8, 8), (1, 1))],
)
def test_views_of_maps_equal_a_plain_softmax_cut_by_loops(unet, mode, latent, grid):
    record = agrees_with_the_oracle(unet, latent, mode)
    size = (latent[0] // grid[0], latent[1] // grid[1])
    maps = record.token_maps()
    ours = view_maps(maps, Layout(*grid), size)
    slow = grids.view_maps([(layer.maps, layer.size) for layer in maps], *grid, size)
    torch.testing.assert_close(ours, slow, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_the_real_grids_size(one_level, mode):
    record = agrees_with_the_oracle(one_level, (120, 80), mode)
    assert {layer.size for layer in record.layers()} == {(120, 80)}
    assert view_maps(record.token_maps(), Layout(3, 2), (40, 40)).shape == (1, 6, K, 40, 40)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_scores_in_float32(unet, dtype):
    unet = unet.to(dtype)
    record = agrees_with_the_oracle(unet, (12, 8), "isolated")
    assert view_maps(record.token_maps(), Layout(3, 2), (8, 8)).dtype == torch.float32
    with torch.no_grad():
        bare = both_passes(unet, context=rows(77 + K)[:, :77])
        with capture_attention(unet):
            assert torch.equal(both_passes(unet), bare)


def test_autocast_takes_no_digits_from_the_scores(unet):
    with torch.autocast("cpu", torch.bfloat16):
        record = agrees_with_the_oracle(unet, (12, 8), "isolated")
    assert all(layer.probabilities.sum(-1).max() < 1 for layer in record.layers())


def storage_bytes(tensor):
    return tensor.untyped_storage().nbytes()


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_only_the_tokens_columns_are_kept(unet, mode):
    def captured(**options):
        with capture_attention(unet, mode=mode, **options) as record, torch.no_grad():
            both_passes(unet)
        return record.layers()

    each, mean, logits = captured(), captured(heads="mean"), captured(heads="mean", normalizer=False)
    for whole, averaged, least in zip(each, mean, logits, strict=True):
        positions = whole.size[0] * whole.size[1]
        heads = whole.token_logits.shape[1]
        assert heads > 1
        assert storage_bytes(whole.token_logits) == 4 * heads * positions * K
        assert storage_bytes(whole.text_normalizer) == 4 * heads * positions
        assert storage_bytes(averaged.token_logits) == storage_bytes(averaged.probabilities) == 4 * positions * K
        assert storage_bytes(least.token_logits) == 4 * positions * K
        assert whole.query is averaged.text_normalizer is least.text_normalizer is least.mean_probabilities is None
        for ours, theirs in (
            (averaged.token_logits, whole.token_logits),
            (averaged.probabilities, whole.probabilities),
        ):
            torch.testing.assert_close(ours, theirs.mean(1, keepdim=True), atol=1e-6, rtol=1e-5)
        assert torch.equal(least.token_logits, averaged.token_logits)
        with pytest.raises(InputError, match="normalizer=False"):
            _ = least.probabilities


def test_queries_are_kept_on_request_and_give_the_logits(unet):
    with capture_attention(unet, queries=True) as record, torch.no_grad():
        both_passes(unet)
    for layer in record.layers():
        attn = unet.get_submodule(layer.name)
        key = attn.to_k(rows(77 + K)[:, 77:]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        torch.testing.assert_close(layer.query @ key.mT, layer.token_logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("mode", "keys"), [("isolated", [77, K]), ("joint", [77 + K])])
def test_nothing_is_projected_twice(unet, mode, keys):
    calls = []
    for name in cross_attention_layers(unet):
        layer = unet.get_submodule(name)
        layer.to_q.register_forward_hook(lambda m, args, out: calls.append("query"))
        layer.to_k.register_forward_hook(lambda m, args, out: calls.append(out.shape[1]))
    with capture_attention(unet, mode=mode), torch.no_grad():
        both_passes(unet)
    assert calls == ["query", *keys] * 2 * len(cross_attention_layers(unet))


# In a program of its own: what checks shapes while the tests run does not survive being compiled.
COMPILED = """
import torch
from diffusers import UNet2DConditionModel
from keyorbit.diffusion.attention import capture_attention

torch.manual_seed(0)
unet = UNet2DConditionModel(**{config}).eval().requires_grad_(False)
compiled = torch.compile(unet, backend="aot_eager", fullgraph=True)
latent, timestep, context = torch.randn(1, 4, 6, 4), torch.tensor(300), torch.randn(1, 82, 16)


@torch.no_grad()
def run(model, latent):
    with capture_attention(model) as record:
        return record, model(latent, timestep, context).sample


with torch.no_grad():
    bare = compiled(latent, timestep, context[:, :77]).sample
# Twice: a second capture finds what the first one compiled.
for latent in (latent, 2 * latent):
    plain, expected = run(unet, latent)
    record, out = run(compiled, latent)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(record.layers(), plain.layers(), strict=True):
        assert ours.name == theirs.name
        torch.testing.assert_close(ours.probabilities, theirs.probabilities, atol=1e-6, rtol=0)
with torch.no_grad():
    assert torch.equal(compiled(latent / 2, timestep, context[:, :77]).sample, bare)
"""


def test_compiled_and_captured():
    program = COMPILED.replace("{config}", repr(ONE_LEVEL | {"mid_block_type": None}))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def with_lora(unet, scale=0.5):
    unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if "lora_B" in name:
                weight.copy_(scale * torch.randn(weight.shape, generator=draw))
    return unet.eval()


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_lora_on_the_attention_layers(unet, mode):
    with torch.no_grad():
        before = both_passes(unet, context=rows(77))
    unet = with_lora(unet)
    agrees_with_the_oracle(unet, (12, 8), mode)
    with torch.no_grad():
        bare = both_passes(unet, context=rows(77 + K)[:, :77])
        assert not torch.allclose(bare, before, atol=1e-3)
        with capture_attention(unet, mode=mode):
            assert torch.equal(both_passes(unet), bare) == (mode == "isolated")


def test_a_wrapped_unet_has_the_same_layers(unet):
    names = cross_attention_layers(unet)
    with torch.no_grad():
        bare = both_passes(unet, context=rows(77))
        wrapped = get_peft_model(unet, LoraConfig(r=2, target_modules=["to_k"])).eval()
        assert cross_attention_layers(wrapped) == names
        with capture_attention(wrapped) as record:
            assert torch.equal(both_passes(wrapped), bare)
    assert [layer.name for layer in record.layers()] == names


def prepared(draw):
    def noise(*shape):
        return torch.randn(*shape, generator=draw)

    return Prepared(
        noise(2, 4, 24, 16),
        noise(2, 4, 8, 8),
        noise(2, 4, 8, 8),
        noise(2, 77, WIDTH),
        torch.full((2,), 300),
        torch.eye(2, 3).expand(2, 6, 2, 3),
        torch.ones(2, 6, 16, 16, dtype=torch.bool),
    )


def test_cached_maps_follow_a_lora_as_the_live_unet_does(backend, generator):
    item, tokens, items = prepared(generator), rows(K)[0], torch.arange(2)
    context = torch.cat([item.context, tokens.expand(2, K, WIDTH)], 1)
    adapted = copy.deepcopy(backend)
    plain = record_passes(adapted, item, "*")["grid"]
    with_lora(adapted.unet)
    cached = record_passes(adapted, item, "*")["grid"]
    with capture_attention(adapted.unet) as record, torch.no_grad():
        adapted.denoise(item.latents, item.timestep, context, item.condition_latent, item.condition_noise)
    for live, ours, old in zip(record.layers(), cached, plain, strict=True):
        torch.testing.assert_close(ours.probabilities(tokens, items), live.probabilities, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(ours.to_key, old.to_key, atol=1e-3)
        stale = replace(ours, to_key=old.to_key).probabilities(tokens, items)
        assert not torch.allclose(stale, live.probabilities, atol=1e-5)


LEAST = "down_blocks.1.*"


@pytest.mark.parametrize("layers", [LEAST, "mid_block.*", ("mid_block.*", "down_blocks.*"), "*"])
@pytest.mark.parametrize("passes", [PASSES, ("grid",), ("condition",)])
@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_an_early_exit_records_the_same(unet, layers, passes, mode):
    before, forward = dict(unet.attn_processors), unet.forward
    ran = []
    for name in cross_attention_layers(unet):
        unet.get_submodule(name).register_forward_pre_hook(lambda m, args, name=name: ran.append(name))
    options = {"layers": layers, "passes": passes, "mode": mode}
    with torch.no_grad():
        with capture_attention(unet, **options) as whole:
            both_passes(unet)
        everything, ran[:] = len(ran), []
        behind = False
        with capture_attention(unet, **options, stop=True) as stopped:
            both_passes(unet)
            behind = True
    assert not behind
    for which in passes:
        for full, ours in zip(whole.layers(which), stopped.layers(which), strict=True):
            assert full.name == ours.name
            assert torch.equal(full.token_logits, ours.token_logits)
            assert torch.equal(full.probabilities, ours.probabilities)
    last = cross_attention_layers(unet, layers)[-1]
    assert ran[-1] == last
    assert ran.count(last) == (1 if passes == ("condition",) else 2)
    assert len(ran) < everything or (layers == "*" and "grid" in passes)
    assert dict(unet.attn_processors) == before
    assert unet.forward == forward


def test_an_early_exit_lets_other_exceptions_through(unet):
    before, forward = dict(unet.attn_processors), unet.forward
    with pytest.raises(RuntimeError, match="mine"), capture_attention(unet, stop=True):
        raise RuntimeError("mine")
    assert dict(unet.attn_processors) == before
    assert unet.forward == forward
    with torch.no_grad():
        both_passes(unet)  # nothing is left that would end it early


def test_an_early_exit_leaves_the_gradient(unet):
    def gradient(**options):
        context = rows(77 + K).requires_grad_()
        with capture_attention(unet, "mid_block.*", mode="joint", **options) as record:
            both_passes(unet, context=context)
        record.layers()[0].probabilities.square().sum().backward()
        return context.grad

    assert torch.equal(gradient(stop=True), gradient())


def test_layers_are_listed_as_they_run(unet):
    ran = []
    for name in cross_attention_layers(unet):
        unet.get_submodule(name).register_forward_pre_hook(lambda m, args, name=name: ran.append(name))
    with torch.no_grad():
        both_passes(unet)
    assert ran == 2 * cross_attention_layers(unet)
