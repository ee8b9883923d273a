"""The UNet's passes as one graph: nothing breaks it, batches share it, and captures go round it.

Traced here, and run by torch as they were traced: to make kernels of a graph takes minutes.
"""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.passes import compiled_passes, two_passes
from keyorbit.errors import InputError


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 20, 3), dtype=np.uint8))


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that are made, which run as they are traced."""
    made = []

    def noted(graph, inputs):
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    traced = partial(torch.compile, backend=noted, fullgraph=True)
    monkeypatch.setattr(torch, "compile", lambda function, options: traced(function))
    yield made
    torch._dynamo.reset()


def test_both_passes_are_one_graph_for_all_batches(graphs, model_folder, backend):
    compiled = load_backend(model_folder, compile=True)
    for pictures in ([picture()], [picture(1), picture(2)]):
        ours = compiled.generate(pictures, seeded(), steps=2)
        torch.testing.assert_close(ours, backend.generate(pictures, seeded(), steps=2), atol=1e-5, rtol=0)
    assert len(graphs) == 1
    # Captured, it runs as it is: the record is there, and no graph is made.
    tokens = torch.randn(2, 16, generator=seeded())
    with capture_attention(compiled.unet) as record:
        captured = compiled.generate(picture(), seeded(), steps=1, tokens=tokens)
        assert record.layers("condition")[0].token_logits.shape[-1] == 2
    assert torch.equal(captured, backend.generate(picture(), seeded(), steps=1))
    assert len(graphs) == 1


def plain_unet(sample, timestep, context, cross_attention_kwargs, return_dict=True):
    if cross_attention_kwargs["mode"] == "w":
        cross_attention_kwargs["reference"]["sum"] = sample.sum()
        return None
    return (sample + cross_attention_kwargs["reference"]["sum"] * timestep,)


def test_without_a_compiler_there_is_one_sentence(monkeypatch):
    def failing(graph, inputs):
        raise RuntimeError("there is no compiler\nand more")

    torch._dynamo.reset()
    with_torch = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, options: with_torch(function, backend=failing))
    inputs = torch.ones(2, 1), torch.zeros(2, 1), torch.tensor(1.0).expand(2, 1), torch.ones(2, 1)
    assert torch.equal(two_passes(plain_unet, *inputs, {}), torch.full((2, 1), 2.0))
    with pytest.raises(InputError, match=r"cannot be compiled here: .*no compiler; load the model without compile$"):
        compiled_passes()(plain_unet, *inputs, {})


def test_a_model_that_generates_nothing_is_not_compiled(stable_diffusion_folder):
    with pytest.raises(InputError, match="generates no views: leave compile out"):
        load_backend(stable_diffusion_folder, compile=True)
