"""How many kernels capture launches, which is what a small batch on a GPU waits for: counted on the CPU."""

import functools

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch.autograd.profiler_util import FunctionEvent

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.inspection.passes import install_reference, run_passes
from keyorbit.diffusion.layers import cross_attention_layers

K = 5
WIDTH = 16
# They change what is said of a tensor, or reserve memory; none of them computes.
NO_KERNEL = """
    view reshape _reshape_alias _unsafe_view as_strided transpose t permute expand unsqueeze squeeze slice select
    narrow split tensor_split chunk flatten unflatten real detach alias to contiguous empty empty_like empty_strided
    new_empty resize_ numpy_T mT result_type resolve_conj resolve_neg
"""


def computes(event: FunctionEvent) -> bool:
    name = event.name.removeprefix("aten::")
    # A number that becomes a tensor without axes is no kernel on a GPU.
    number = name in ("copy_", "_to_copy") and not any(event.input_shapes)
    return name != event.name and name not in NO_KERNEL.split() and not number


def kernels(run) -> int:
    """The operators that compute and call no others that do."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        run()
    return sum(computes(event) and not any(map(computes, event.cpu_children)) for event in profile.events())


def test_the_count_counts():
    x, y = torch.rand(2, 3, 4), torch.rand(2, 4, 5)
    assert kernels(lambda: x.mT[:, 1:].unflatten(-1, (3, 1)).reshape(2, 9)) == 1  # the copy
    assert kernels(lambda: (x @ y).softmax(-1).view(-1)) == 2
    assert kernels(lambda: x * 2.0 + 1) == 2
    assert kernels(lambda: x.logsumexp(-1)) > 5


@functools.cache
def small_unet(dtype):
    """Three layers of two heads: the fewer operators, the faster they are counted."""
    config = {
        "sample_size": 8,
        "block_out_channels": (8,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "mid_block_type": None,
        "up_block_types": ("CrossAttnUpBlock2D",),
        "layers_per_block": 1,
        "attention_head_dim": (2,),
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 4,
    }
    unet = UNet2DConditionModel(**config).eval().requires_grad_(False).to(dtype)
    install_reference(unet)
    return unet


# Of each layer and pass, with one item and with several. Several are copied so that an item's heads lie together: the
# query, and the keys of text and tokens (joint: both at once). A mean is a sum into zeros and a division.
MOST = {
    # to_k of the tokens, two products, log-softmax, difference
    ("isolated", "each", True): (5, 5 + 3),
    ("isolated", "each", False): (2, 2 + 3),
    # to_k, the averaged logits, keys side by side, product, softmax, mean
    ("isolated", "mean", True): (5 + 2, 5 + 2 + 2),
    ("isolated", "mean", False): (2, 2),
    ("joint", "each", True): (4, 4 + 2),
    ("joint", "each", False): (1, 1 + 2),
    ("joint", "mean", True): (3 + 2, 3 + 2 + 2),
    ("joint", "mean", False): (1, 1),
}


def passes(batch, tokens, dtype=torch.float32):
    draw = torch.Generator().manual_seed(1)
    latents = {
        "condition": torch.randn(batch, 4, 4, 4, generator=draw).to(dtype),
        "grid": torch.randn(batch, 4, 6, 4, generator=draw).to(dtype),
    }
    context = torch.randn(batch, 77 + tokens, WIDTH, generator=draw).to(dtype)
    return torch.no_grad()(lambda: run_passes(small_unet(dtype), latents, context))


@functools.cache
def bare(batch, tokens, dtype):
    return kernels(passes(batch, tokens, dtype))


def launched(batch, tokens=K, dtype=torch.float32, **options):
    """Kernels a layer and pass more than without capture, and those of reading the maps."""
    unet = small_unet(dtype)
    layers = 2 * len(cross_attention_layers(unet))
    with capture_attention(unet, **options) as record:
        captured = kernels(passes(batch, tokens, dtype))
    read = 0
    if options.get("normalizer", True):
        read = kernels(lambda: [record.token_maps(which) for which in ("condition", "grid")])
    return (captured - bare(batch, tokens, dtype)) / layers, read / layers


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("mode", "heads", "normalizer"), MOST)
def test_kernels_of_a_layer(mode, heads, normalizer, batch):
    count, read = launched(batch, mode=mode, heads=heads, normalizer=normalizer)
    # The context is cut once a forward, which copies both parts of several items.
    cut = 2 / len(cross_attention_layers(small_unet(torch.float32))) if mode == "isolated" and batch > 1 else 0
    assert 0 < count <= MOST[mode, heads, normalizer][batch - 1] + cut
    assert read <= 2  # the text beside the tokens, and a softmax


@pytest.mark.parametrize(("normalizer", "most"), [(True, 1 + 3), (False, 1)])
def test_kernels_of_queries_without_tokens(normalizer, most):
    """What a recording runs: the scaled query, and for attention the text's product, log-softmax and difference."""
    assert 0 < launched(1, tokens=0, queries=True, normalizer=normalizer)[0] <= most


def test_kernels_in_half_precision():
    """Query and keys become float32 in the copy that brings heads together, whatever the number of items."""
    assert 0 < launched(2, dtype=torch.bfloat16, mode="joint")[0] <= 4 + 2


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_layers_that_are_not_chosen_launch_nothing(mode):
    unet = small_unet(torch.float32)
    with capture_attention(unet, "down_blocks.*", ("condition",), mode, heads="mean", normalizer=False):
        assert 0 < kernels(passes(1, K)) - bare(1, K, torch.float32) <= 2
        touched = {name for name, module in unet.named_modules() if "forward" in vars(module)}
    assert touched == set(cross_attention_layers(unet, "down_blocks.*" if mode == "joint" else "*"))
    assert not any("forward" in vars(module) for module in unet.modules())
