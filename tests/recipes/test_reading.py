"""Context rows are read as isolated tokens are, and nothing is left of them behind a step."""

import pytest
import torch

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.maps import view_maps
from keyorbit.geometry.views import Layout
from tiny_model.reading import RowReader


def test_rows_are_read_as_isolated_tokens_are(backend, generator):
    """The oracle: the library's capture, which gets the rows behind the text. The prediction does not see them."""
    latents, noise = torch.randn(2, 2, 4, 24, 16, generator=generator)
    pictures, picture_noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 77, 16, generator=generator)
    timestep = torch.tensor([100, 600])
    found = []
    for ours in (True, False):
        rows = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        seen = [backend.add_noise(latents, noise, timestep), timestep]
        if ours:
            with RowReader(backend.unet) as reader:
                reader.read(rows)
                predicted = backend.denoise(*seen, text, pictures, picture_noise)
                layers = reader.take((8, 8), (24, 16))
        else:
            with capture_attention(backend.unet, heads="mean", normalizer=False) as record:
                predicted = backend.denoise(*seen, torch.cat([text, rows], dim=1), pictures, picture_noise)
                layers = [record.token_logits("condition"), record.token_logits("grid")]
        layouts = (Layout(1, 1), backend.layout)
        maps = [view_maps(of, layout, (8, 8)) for of, layout in zip(layers, layouts, strict=True)]
        sum(one.square().sum() for one in maps).backward()
        found.append((predicted, layers, maps, rows.grad))
    (predicted, layers, maps, gradient), (expected, captured, expected_maps, expected_gradient) = found
    assert torch.equal(predicted, expected)
    for own, other, of, each in zip(maps, expected_maps, layers, captured, strict=True):
        torch.testing.assert_close(own, other)
        # One of each size: what is resized later is no more than that.
        assert [layer.size for layer in of] == list(dict.fromkeys(layer.size for layer in each))
        assert len(of) < len(each)
    torch.testing.assert_close(gradient, expected_gradient)


def test_nothing_is_read_unless_rows_are_given(backend):
    reader = RowReader(backend.unet)
    latents, context = torch.zeros(1, 4, 24, 16), torch.zeros(1, 77, 16)
    with torch.no_grad(), reader:
        backend.unet(latents, 10, context)
        assert reader.take() == []
        reader.read(torch.zeros(1, 2, 16))
        backend.unet(latents, 10, context)
        with pytest.raises(RuntimeError, match="not those of 2 forwards"):
            reader.take((24, 16), (24, 16))
        reader.read(torch.zeros(1, 2, 16))
    with torch.no_grad():
        backend.unet(latents, 10, context)  # outside of the block nobody listens
    assert reader.take() == []
