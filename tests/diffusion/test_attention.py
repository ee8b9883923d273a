"""Capture: exact maps, an undisturbed image branch, both passes, any size."""

import copy
from functools import partial

import pytest
import torch
import torch.utils.checkpoint
from diffusers import UNet2DConditionModel

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.zero123plus import Components, Zero123PlusBackend
from keyorbit.diffusion.captured import PASSES
from keyorbit.diffusion.context import split_context
from keyorbit.diffusion.layers import cross_attention_layers
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from oracles import attention as oracle
from tiny_model.model import TinyConfig, make_tiny

K = 5


def inputs(backend, latent=(24, 16), batch=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    width = backend.unet.config.cross_attention_dim
    return {
        "latents": torch.randn(batch, 4, *latent, generator=g),
        "timestep": torch.tensor(300),
        "context": torch.randn(batch, 77, width, generator=g),
        "condition_latent": torch.randn(batch, 4, 8, 8, generator=g),
        "condition_noise": torch.randn(batch, 4, 8, 8, generator=g),
    }


def tokens_for(backend, count=K):
    g = torch.Generator().manual_seed(9)
    return Tokens(torch.randn(count, backend.unet.config.cross_attention_dim, generator=g))


def run(backend, tokens=None, **kwargs):
    given = inputs(backend, **kwargs)
    if tokens is not None:
        given["context"] = tokens.append_to(given["context"])
    return backend.denoise(**given)


@pytest.mark.parametrize("mode", ["isolated", "joint"])
@pytest.mark.parametrize("latent", [(24, 16), (12, 8), (6, 12), (12, 12)])
def test_maps_equal_a_plain_softmax(backend, mode, latent):
    tokens = tokens_for(backend)
    context = tokens.append_to(inputs(backend, latent)["context"])
    with torch.no_grad():
        seen, handles = oracle.watch(backend.unet)
        with capture_attention(backend.unet, mode=mode) as record:
            run(backend, tokens, latent=latent)
        for handle in handles:
            handle.remove()
        recorded = record.layers("condition") + record.layers("grid")
        assert len(recorded) == len(seen)
        for layer, (name, module, hidden) in zip(recorded, seen, strict=True):
            assert layer.name == name
            torch.testing.assert_close(layer.probabilities, oracle.maps(module, hidden, context), atol=1e-6, rtol=0)
            assert layer.token_logits.shape[-1] == K
            assert layer.size[0] * layer.size[1] == hidden.shape[1]


def test_isolated_leaves_the_output_bit_identical_and_joint_does_not(backend):
    tokens = tokens_for(backend)
    with torch.no_grad():
        bare = run(backend)
        with capture_attention(backend.unet, "up_blocks.*", mode="isolated"):
            isolated = run(backend, tokens)
        with capture_attention(backend.unet, "up_blocks.*", mode="joint"):
            joint = run(backend, tokens)
        plain_93 = run(backend, tokens)
    assert torch.equal(isolated, bare)
    assert not torch.equal(joint, bare)
    assert torch.equal(joint, plain_93)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_image_branch_sees_a_context_like_a_bare_one(backend, batch):
    """A product takes its kernel by strides too, also by the stride over a single item, where it has no effect."""
    tokens, seen = tokens_for(backend), []
    handles = [
        backend.unet.get_submodule(f"{name}.{part}").register_forward_pre_hook(
            lambda _, args: seen.append((args[0].shape, args[0].stride()))
        )
        for name in cross_attention_layers(backend.unet)
        for part in ("to_k", "to_v")
    ]
    with torch.no_grad():
        run(backend, batch=batch)
        bare, seen[:] = list(seen), []
        with capture_attention(backend.unet):
            run(backend, tokens, batch=batch)
    for handle in handles:
        handle.remove()
    assert [x for x in seen if x[0][1] == 77] == bare
    assert {x for x in seen if x[0][1] == K} == {((batch, K, 16), (K * 16, 16, 1))}


def test_layers_and_passes_are_chosen_by_name(backend):
    tokens = tokens_for(backend)
    with capture_attention(backend.unet, "up_blocks.*.attn2", passes=("grid",)) as record, torch.no_grad():
        run(backend, tokens)
    assert {layer.name.split(".")[0] for layer in record.layers("grid")} == {"up_blocks"}
    with pytest.raises(InputError, match="condition"):
        record.layers("condition")
    with pytest.raises(InputError, match="no_such"):
        cross_attention_layers(backend.unet, "no_such*")


def test_a_new_forward_replaces_the_records(backend):
    tokens = tokens_for(backend)
    with capture_attention(backend.unet) as record, torch.no_grad():
        run(backend, tokens, seed=0)
        first = record.layers()[0].token_logits
        run(backend, tokens, seed=1)
    assert [layer.name for layer in record.layers()] == cross_attention_layers(backend.unet)
    assert not torch.equal(record.layers()[0].token_logits, first)


def test_processors_are_chained_and_put_back_even_after_an_exception(backend):
    before = dict(backend.unet.attn_processors)
    calls = []
    counted = {}
    for name, processor in before.items():
        if name.endswith("attn2.processor"):
            counted[name] = Counting(processor, calls)
    backend.unet.set_attn_processor({**before, **counted})
    try:
        with pytest.raises(RuntimeError, match="stop"), capture_attention(backend.unet), torch.no_grad():
            run_and_fail(backend)
        after = backend.unet.attn_processors
        assert all(after[name] is counted.get(name, before[name]) for name in before)
        assert len(calls) == 2 * len(counted)
    finally:
        backend.unet.set_attn_processor(dict(before))


def run_and_fail(backend):
    run(backend, tokens_for(backend))
    raise RuntimeError("stop")


class Counting(torch.nn.Module):
    def __init__(self, chained, calls):
        super().__init__()
        self.chained, self.calls = chained, calls

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        self.calls.append(encoder_hidden_states.shape[1])
        return self.chained(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def test_nesting_is_refused(backend):
    with capture_attention(backend.unet), pytest.raises(InputError, match="already"), capture_attention(backend.unet):
        pass


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_gradients_reach_the_tokens_and_survive_checkpointing(backend, mode):
    def gradient():
        tokens = tokens_for(backend)
        with capture_attention(backend.unet, mode=mode) as record:
            run(backend, tokens)
            parts = [layer.probabilities.square().sum() for which in PASSES for layer in record.layers(which)]
            torch.stack(parts).sum().backward()
        return tokens.embedding.grad

    plain = gradient()
    assert plain.abs().max() > 0
    backend.unet.enable_gradient_checkpointing()
    backend.unet.train()
    try:
        torch.testing.assert_close(gradient(), plain, atol=1e-6, rtol=1e-4)
    finally:
        backend.unet.eval()
        backend.unet.disable_gradient_checkpointing()


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_gradients_where_only_some_layers_are_checkpointed(backend):
    """Reentrant checkpoints run their layers without gradients first; the others run with them from the start."""

    def gradient():
        tokens = tokens_for(backend)
        with capture_attention(backend.unet) as record:
            run(backend, tokens, batch=2)
            late = [layer for layer in record.layers() if not layer.name.startswith("down")]
            torch.stack([layer.probabilities.square().sum() for layer in late]).sum().backward()
        return tokens.embedding.grad

    plain = gradient()
    assert plain.abs().max() > 0
    reentrant = partial(torch.utils.checkpoint.checkpoint, use_reentrant=True)
    backend.unet.enable_gradient_checkpointing(reentrant)
    backend.unet.train()
    for name, module in backend.unet.named_modules():
        if hasattr(module, "gradient_checkpointing") and not name.startswith("down_blocks"):
            module.gradient_checkpointing = False
    try:
        torch.testing.assert_close(gradient(), plain, atol=1e-6, rtol=1e-4)
    finally:
        backend.unet.eval()
        backend.unet.disable_gradient_checkpointing()


def test_a_context_that_is_overwritten_in_place(backend):
    given = inputs(backend, batch=2)
    contexts = [Tokens(tokens_for(backend).embedding * factor).append_to(given["context"]) for factor in (1.0, 2.0)]
    with capture_attention(backend.unet) as record, torch.no_grad():
        expected = []
        for context in contexts:
            backend.denoise(**given | {"context": context})
            expected.append(record.layers()[-1].token_logits)
        same = torch.empty_like(contexts[0])
        for context, logits in zip(contexts, expected, strict=True):
            backend.denoise(**given | {"context": same.copy_(context)})
            assert torch.equal(record.layers()[-1].token_logits, logits)


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_logits_far_apart(backend, mode):
    """Float32 resolves logits of a thousand to a ten-thousandth: so exact are the maps, wherever the largest stands."""
    unet = copy.deepcopy(backend.unet)
    tokens = tokens_for(backend)
    with torch.no_grad():
        for name in cross_attention_layers(unet):
            unet.get_submodule(name).to_q.weight.mul_(300)
        context = tokens.append_to(inputs(backend)["context"])
        seen, handles = oracle.watch(unet)
        with capture_attention(unet, mode=mode) as record:
            unet(inputs(backend)["latents"], 300, context)
        for handle in handles:
            handle.remove()
        largest = 0.0
        for layer, (_, module, hidden) in zip(record.layers(), seen, strict=True):
            largest = max(largest, layer.token_logits.abs().max().item())
            exact = oracle.maps(module.double(), hidden.double(), context.double()).float()
            torch.testing.assert_close(layer.probabilities, exact, atol=2e-4, rtol=0)
        assert largest > 300


# Stable Diffusion 2.1's UNet, as Zero123++ uses it.
SD21 = {
    "sample_size": 96,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}


@pytest.fixture(scope="module")
def full_size():
    """Every shape of the full 866M-parameter model, without its weights."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD21)
    small = make_tiny(TinyConfig(view_size=16, vae_channels=(8, 8), unet_channels=(16, 32), heads=(2, 4)))
    parts = Components(**{**vars(small), "unet": unet})
    backend = Zero123PlusBackend(parts, Layout(3, 2), zero123plus_cameras(), 320, "meta")
    context = torch.empty(1, 77, 1024, device="meta")
    tokens = Tokens(torch.zeros(16, 1024)).to("meta")
    timestep = torch.tensor([300], device="meta")
    rows = tokens.append_to(context)
    grid, condition = torch.empty(1, 4, 120, 80, device="meta"), torch.empty(1, 4, 64, 64, device="meta")
    keys, handles = [], []
    for name, module in unet.named_modules():
        if name.endswith(("attn2.to_k", "attn2.to_v")):
            handles.append(module.register_forward_hook(lambda m, args, out: keys.append(tuple(out.shape))))
    with capture_attention(unet, mode="joint", queries=True) as record:
        reference = {}
        unet(condition, timestep, rows, cross_attention_kwargs={"mode": "w", "reference": reference})
        unet(grid, timestep, rows, cross_attention_kwargs={"mode": "r", "reference": reference})
    for handle in handles:
        handle.remove()
    assert backend.layout.view_size(120, 80) == (40, 40)
    return rows, record, keys, reference


def test_full_size_shape_table(full_size):
    rows, record, keys, reference = full_size
    assert rows.shape == (1, 93, 1024)
    for which, top in (("condition", (64, 64)), ("grid", (120, 80))):
        layers = record.layers(which)
        assert len(layers) == 16
        assert [layer.name.split("_")[0] for layer in layers] == ["down"] * 6 + ["mid"] + ["up"] * 9
        for level, heads in enumerate((5, 10, 20)):
            size = tuple(-(-side // 2**level) for side in top)
            at_level = [x for x in layers if x.size == size]
            assert len(at_level) == 5
            for layer in at_level:
                assert tuple(layer.token_logits.shape) == (1, heads, size[0] * size[1], 16)
                assert tuple(layer.query.shape) == (1, heads, size[0] * size[1], 64)
        assert [x.size for x in layers if x.name.startswith("mid")] == [tuple(-(-side // 8) for side in top)]
    positions = {which: sorted({x.query.shape[2] for x in record.layers(which)}) for which in ("condition", "grid")}
    assert positions == {"condition": [64, 256, 1024, 4096], "grid": [150, 600, 2400, 9600]}
    # Keys and values of both passes, once each, have 93 rows everywhere.
    assert len(keys) == 2 * 2 * 16
    assert {shape[1] for shape in keys} == {93}
    assert {shape[2] for shape in keys} == {320, 640, 1280}
    assert len(reference) == 16


def test_two_rows_of_three_do_not_fit_the_real_grid():
    assert Layout(3, 2).view_size(120, 80) == (40, 40)
    with pytest.raises(ValueError, match="divide"):
        Layout(2, 3).check(120, 80)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_context_is_cut_into_tensors_as_if_they_had_never_been_one(batch):
    context = torch.rand(batch, 9, 4)
    for part, rows in zip(split_context(context, 7), (slice(7), slice(7, None)), strict=True):
        alone = context[:, rows].clone(memory_format=torch.contiguous_format)
        assert torch.equal(part, alone)
        assert part.stride() == torch.empty(part.shape).stride()
