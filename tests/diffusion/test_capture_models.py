"""Capture round other models and processors of diffusers: what they compute stays, and the maps are right."""

import copy
import inspect
import pickle
from functools import partial

import diffusers
import pytest
import torch
from diffusers.models.attention_processor import (
    AttnProcessor2_0,
    CustomDiffusionAttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
)
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from peft import LoraConfig

from keyorbit.diffusion.attention import capture_attention
from keyorbit.diffusion.layers import cross_attention_layers, layers_with_context
from keyorbit.diffusion.tokens import Tokens
from keyorbit.errors import InputError

K, WIDTH, TEXT = 3, 32, 7
SMALL = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": WIDTH,
}


def unet(**kwargs):
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return diffusers.UNet2DConditionModel(**SMALL, attention_head_dim=8, **(blocks | kwargs)).eval()


def motion():
    return diffusers.UNetMotionModel(
        **SMALL,
        num_attention_heads=4,
        motion_num_attention_heads=4,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
    ).eval()


def three_d():
    return diffusers.UNet3DConditionModel(
        **SMALL,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    ).eval()


def video():
    return diffusers.UNetSpatioTemporalConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        num_attention_heads=(2, 4),
        projection_class_embeddings_input_dim=96,
        addition_time_embed_dim=32,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    ).eval()


def upscaler():
    """Self-attention reads the context too, as in Stable Diffusion's x4 upscaler."""
    return unet(only_cross_attention=(True, False))


def shared_middle():
    """Its middle has text and picture in one attention: that is no map, but must not see the tokens."""
    return unet(mid_block_type="UNetMidBlock2DSimpleCrossAttn")


def pixart():
    return diffusers.PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=WIDTH,
        use_additional_conditions=False,
    ).eval()


@pytest.fixture
def rows():
    """A text's context and tokens."""
    drawn = torch.Generator().manual_seed(3)
    return torch.randn(1, TEXT, WIDTH, generator=drawn), Tokens(torch.randn(K, WIDTH, generator=drawn))


def pictures(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4))


def softmax_of_all(name, model, run, context, tokens, mask=None):
    """The tokens' columns, from the layer's own query and key of a run without capture, one head at a time."""
    layer, seen = model.get_submodule(name), []
    hook = layer.to_q.register_forward_hook(lambda _, args, out: seen.append(out))
    with torch.no_grad():
        run(context)
    hook.remove()
    query, key = seen[0], layer.to_k(tokens.append_to(context))
    width = query.shape[-1] // layer.heads
    found = []
    for head in range(layer.heads):
        part = slice(head * width, (head + 1) * width)
        logits = query[..., part] @ key[..., part].expand(len(query), -1, -1).transpose(1, 2) / width**0.5
        if mask is not None:
            logits[..., :TEXT] = logits[..., :TEXT].masked_fill(mask[:, None] == 0, -torch.inf)
        found.append(logits.softmax(-1)[..., TEXT:])
    return torch.stack(found, 1)


def calls(kind, context):
    """A model, and a run of it that returns what it computes; frames are pictures of one batch."""
    model = kind()
    if kind is motion:
        return model, lambda rows: model(pictures(1, 4, 2, 8, 8), 1, rows.repeat(2, 1, 1)).sample
    if kind is three_d:
        return model, lambda rows: model(pictures(1, 4, 2, 8, 8), 1, rows).sample
    if kind is video:
        return model, lambda rows: model(pictures(1, 2, 8, 8, 8), 1, rows, torch.ones(1, 3)).sample
    return model, lambda rows: model(pictures(1, 4, 8, 8), 1, rows).sample


@pytest.mark.parametrize(
    "kind", [unet, upscaler, shared_middle, motion, three_d, video], ids=lambda kind: kind.__name__
)
def test_videos_and_pictures(kind, rows):
    context, tokens = rows
    model, run = calls(kind, context)
    before, weights = dict(model.attn_processors), list(model.state_dict())
    with torch.no_grad():
        bare = run(context)
        with capture_attention(model, text_tokens=TEXT) as record:
            captured = run(tokens.append_to(context))
            assert model.attn_processors == before
            assert list(model.state_dict()) == weights
    assert torch.equal(captured, bare)
    assert not any("forward" in vars(x) or x._forward_hooks or x._forward_pre_hooks for x in model.modules())
    names = [layer.name for layer in record.layers()]
    assert names == cross_attention_layers(model)
    assert not any(word in name for name in names for word in ("motion", "temp"))
    for layer in record.layers():
        truth = softmax_of_all(layer.name, model, run, context, tokens)
        torch.testing.assert_close(layer.probabilities, truth, atol=1e-6, rtol=0)
        assert layer.size[0] == layer.size[1]


def test_only_chosen_layers_are_touched_in_joint_mode_and_temporal_ones_never(rows):
    context, tokens = rows
    model, run = calls(motion, context)
    chosen = cross_attention_layers(model)[:1]
    with torch.no_grad(), capture_attention(model, chosen, mode="joint", text_tokens=TEXT):
        touched = [name for name, module in model.named_modules() if "forward" in vars(module)]
        run(tokens.append_to(context))
    assert touched == chosen


def test_no_map_of_layers_over_time(rows):
    model, _ = calls(video, rows[0])
    with pytest.raises(InputError, match=r"no cross-attention layer matches '\*temporal\*'; there are: down_blocks"):
        cross_attention_layers(model, "*temporal*")


@pytest.mark.parametrize("form", ["number", "bias", "truth"])
def test_a_transformer_with_cross_attention(form, rows):
    context, tokens = rows
    model = pixart()
    mask = torch.ones(1, TEXT)
    mask[:, 4:] = 0
    formed = {"number": mask, "bias": (mask[:, None] - 1) * 10000, "truth": mask[:, None].bool()}[form]

    def run(rows):
        given = {"encoder_hidden_states": rows, "timestep": torch.tensor([1]), "encoder_attention_mask": formed}
        return model(hidden_states=pictures(1, 4, 8, 12), **given).sample

    with torch.no_grad():
        bare = run(context)
        with capture_attention(model, text_tokens=TEXT) as record:
            captured = run(tokens.append_to(context))
        projected = model.caption_projection(tokens.append_to(context))
    torch.testing.assert_close(captured, bare, atol=1e-6, rtol=0)  # its projection takes other kernels for more rows
    assert [(layer.name, layer.size) for layer in record.layers()] == [
        ("transformer_blocks.0.attn2", (4, 6)),
        ("transformer_blocks.1.attn2", (4, 6)),
    ]
    inner = Tokens(projected[0, TEXT:])
    for layer in record.layers():
        truth = softmax_of_all(layer.name, model, lambda _: run(context), projected[:, :TEXT], inner, mask)
        torch.testing.assert_close(layer.probabilities, truth, atol=1e-6, rtol=0)


@pytest.mark.parametrize("heads", ["each", "mean"])
@pytest.mark.parametrize("mode", ["isolated", "joint"])
@pytest.mark.parametrize("shape", [(1, TEXT), (1, TEXT + K), (1, 1, TEXT)])
def test_masked_rows_count_nowhere(mode, heads, shape, rows):
    context, tokens = rows
    model, left, options = unet(), 4, {"mode": mode, "heads": heads}
    mask = torch.ones(shape)
    mask[..., left:TEXT] = 0
    with torch.no_grad():
        with capture_attention(model, text_tokens=TEXT, **options) as record:
            masked = model(pictures(1, 4, 8, 8), 1, tokens.append_to(context), encoder_attention_mask=mask).sample
        with capture_attention(model, text_tokens=left, **options) as gone:
            without = model(pictures(1, 4, 8, 8), 1, tokens.append_to(context[:, :left])).sample
    torch.testing.assert_close(masked, without, atol=1e-5, rtol=0)
    for one, other in zip(record.layers(), gone.layers(), strict=True):
        torch.testing.assert_close(one.token_logits, other.token_logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.probabilities, other.probabilities, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_a_masked_token_is_nowhere(mode, rows):
    context, tokens = rows
    mask = torch.ones(1, TEXT + K)
    mask[:, -1] = 0
    model = unet()
    with torch.no_grad(), capture_attention(model, text_tokens=TEXT, mode=mode) as record:
        model(pictures(1, 4, 8, 8), 1, tokens.append_to(context), encoder_attention_mask=mask)
    for layer in record.layers():
        assert layer.probabilities[..., -1].max() == 0 < layer.probabilities[..., 0].min()


def test_a_mask_that_fits_nothing(rows):
    context, tokens = rows
    with (
        torch.no_grad(),
        capture_attention(model := unet(), text_tokens=TEXT),
        pytest.raises(InputError, match=r"a mask of shape \[1, 1, 5\] does not fit a context of 7 text rows and 3"),
    ):
        model(pictures(1, 4, 8, 8), 1, tokens.append_to(context), encoder_attention_mask=torch.ones(1, 5))


def with_adapter():
    """A UNet as pipe.load_ip_adapter leaves it: processors with projections of their own, and one for pictures."""
    model = unet()
    layers = cross_attention_layers(model)
    torch.manual_seed(1)
    processors = model.attn_processors
    for name in layers:
        width = model.get_submodule(name).to_q.in_features
        processors[f"{name}.processor"] = IPAdapterAttnProcessor2_0(width, WIDTH, (4,), 0.5)
    model.set_attn_processor(processors)
    model.encoder_hid_proj = MultiIPAdapterImageProjection([ImageProjection(16, WIDTH, 4)])
    model.config.encoder_hid_dim_type = "ip_image_proj"
    return model


def test_an_ip_adapter_and_its_masks(rows):
    context, tokens = rows
    model, added = with_adapter(), {"image_embeds": [pictures(1, 1, 16)]}

    def run(rows, **kwargs):
        return model(pictures(1, 4, 8, 8), 1, rows, added_cond_kwargs=added, cross_attention_kwargs=kwargs).sample

    half = torch.zeros(1, 1, 64, 64)
    half[..., :32] = 1
    with torch.no_grad():
        bare, bare_half = run(context), run(context, ip_adapter_masks=[half])
        with capture_attention(model, text_tokens=TEXT) as record:
            assert torch.equal(run(tokens.append_to(context)), bare)
            assert torch.equal(run(tokens.append_to(context), ip_adapter_masks=[half]), bare_half)
            run(tokens.append_to(context))
    assert not torch.equal(bare, bare_half)
    for layer in record.layers():
        torch.testing.assert_close(
            layer.probabilities, softmax_of_all(layer.name, model, run, context, tokens), atol=1e-6, rtol=0
        )


def test_a_processor_without_room_for_an_adapters_pictures(rows):
    context, tokens = rows
    with torch.no_grad(), capture_attention(model := unet(), text_tokens=TEXT):
        layer = model.get_submodule(cross_attention_layers(model)[0])
        with pytest.raises(InputError, match=r"its AttnProcessor2_0 takes none: pipe\.load_ip_adapter installs"):
            layer(pictures(1, 64, 32), (tokens.append_to(context), [pictures(1, 4, WIDTH)]))


class KeywordsOnly:
    """A user's processor, with arguments that diffusers does not know."""

    def __init__(self):
        self.seen = []

    def __call__(self, attn, hidden_states, *, encoder_hidden_states=None, attention_mask=None, mine=None, other=3):
        self.seen.append((encoder_hidden_states.shape[1], mine, other))
        return hidden_states


def test_every_argument_that_the_users_processor_names_reaches_it(rows):
    context, tokens = rows
    model, mine = unet(), KeywordsOnly()
    cross = {f"{name}.processor" for name in cross_attention_layers(model)}
    model.set_attn_processor({name: mine if name in cross else old for name, old in model.attn_processors.items()})
    given = {"mine": [1], "mode": "w", "nobodys": 2}
    with torch.no_grad(), capture_attention(model, text_tokens=TEXT) as record:
        model(pictures(1, 4, 8, 8), 1, tokens.append_to(context), cross_attention_kwargs=given)
    assert mine.seen == [(TEXT, [1], 3)] * len(cross)
    assert len(record.layers("condition")) == len(cross)


def test_processors_that_are_exchanged_meanwhile(rows):
    """As pipe.load_ip_adapter and pipe.set_ip_adapter_scale do, and pipelines such as Attend-and-Excite."""
    context, tokens = rows
    model, adapted, added = unet(), with_adapter(), {"image_embeds": [pictures(1, 1, 16)]}
    with torch.no_grad(), capture_attention(model, text_tokens=TEXT) as record:
        model.set_attn_processor(dict(adapted.attn_processors))
        model.encoder_hid_proj, model.config.encoder_hid_dim_type = adapted.encoder_hid_proj, "ip_image_proj"
        outs = []
        for scale in (0.5, 0.0):
            for processor in model.attn_processors.values():
                if isinstance(processor, IPAdapterAttnProcessor2_0):
                    processor.scale = [scale]
            outs.append(model(pictures(1, 4, 8, 8), 1, tokens.append_to(context), added_cond_kwargs=added).sample)
        assert len(record.layers()) == len(cross_attention_layers(model))
    with torch.no_grad():
        assert torch.equal(outs[1], model(pictures(1, 4, 8, 8), 1, context, added_cond_kwargs=added).sample)
    assert not torch.equal(*outs)
    assert model.attn_processors == adapted.attn_processors


def test_a_lora_that_is_added_meanwhile(rows):
    context, tokens = rows
    model = unet()

    def run(rows):
        return model(pictures(1, 4, 8, 8), 1, rows).sample

    with torch.no_grad(), capture_attention(model, text_tokens=TEXT) as record:
        run(tokens.append_to(context))
        model.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_k"]))
        model.eval()
        run(tokens.append_to(context))
    for layer in record.layers():
        truth = softmax_of_all(layer.name, model, run, context, tokens)
        torch.testing.assert_close(layer.probabilities, truth, atol=1e-6, rtol=0)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_made_meanwhile_is_not_captured(copied, rows):
    context, tokens = rows
    model = with_adapter()

    def run(model, rows):
        added = {"image_embeds": [pictures(1, 1, 16)]}
        return model(pictures(1, 4, 8, 8), 1, rows, added_cond_kwargs=added).sample

    with capture_attention(model, text_tokens=TEXT) as record:
        run(model, tokens.append_to(context))
        other = copied(model)
        first = record.layers()[0].token_logits
        seen = run(other, tokens.append_to(context))
        assert record.layers()[0].token_logits is first
    assert torch.equal(seen, run(model, tokens.append_to(context)))


def test_what_is_put_before_a_layer_meanwhile_stays(rows):
    """As hooks of accelerate, which keep a model's parts elsewhere."""
    context, tokens = rows
    model, calls = unet(), []
    layer = model.get_submodule(cross_attention_layers(model)[0])

    def before(*args, inner, **kwargs):
        calls.append(kwargs["encoder_hidden_states"].shape[1])
        return inner(*args, **kwargs)

    with torch.no_grad():
        with capture_attention(model, text_tokens=TEXT):
            layer.forward = partial(before, inner=layer.forward)
        kept = model(pictures(1, 4, 8, 8), 1, tokens.append_to(context)).sample
        assert torch.equal(kept, unet()(pictures(1, 4, 8, 8), 1, tokens.append_to(context)).sample)
    assert calls == [TEXT + K]


def test_custom_diffusion_has_projections_of_its_own(rows):
    context, tokens = rows
    model = unet()
    processors = model.attn_processors
    for name in cross_attention_layers(model):
        layer = model.get_submodule(name)
        own = CustomDiffusionAttnProcessor2_0(True, True, layer.to_q.in_features, WIDTH)
        processors[f"{name}.processor"] = own
    model.set_attn_processor(processors)

    def run(rows):
        return model(pictures(1, 4, 8, 8), 1, rows).sample

    with torch.no_grad():
        bare = run(context)
        with capture_attention(model, text_tokens=TEXT) as record:
            assert torch.equal(run(tokens.append_to(context)), bare)
    for layer in record.layers():
        attn = model.get_submodule(layer.name)
        attn.to_q, attn.to_k = attn.processor.to_q_custom_diffusion, attn.processor.to_k_custom_diffusion
        truth = softmax_of_all(layer.name, model, run, context, tokens)
        torch.testing.assert_close(layer.probabilities, truth, atol=1e-6, rtol=0)


class PicturesBehindTheText(AttnProcessor2_0):
    """As of the first IP-Adapter and InstantID; it may project more than once, as for regional prompts."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None):
        text = encoder_hidden_states[:, :-2]
        out = super().__call__(attn, hidden_states, text, attention_mask)
        attn.to_q(-hidden_states)
        attn.to_k(-text)
        return out


@pytest.mark.parametrize("heads", ["each", "mean"])
def test_pictures_joined_to_the_text_are_no_text(heads, rows):
    context, tokens = rows
    model, plain = unet(), unet()
    cross = {f"{name}.processor" for name in cross_attention_layers(model)}
    ours = {name: PicturesBehindTheText() if name in cross else old for name, old in model.attn_processors.items()}
    model.set_attn_processor(ours)
    both = torch.cat([context, pictures(1, 2, WIDTH)], 1)
    with torch.no_grad():
        with capture_attention(model, text_tokens=TEXT + 2, heads=heads) as record:
            model(pictures(1, 4, 8, 8), 1, tokens.append_to(both))
        with capture_attention(plain, text_tokens=TEXT, heads=heads) as expected:
            plain(pictures(1, 4, 8, 8), 1, tokens.append_to(context))
        for layer, same in zip(record.layers(), expected.layers(), strict=True):
            torch.testing.assert_close(layer.probabilities, same.probabilities, atol=1e-6, rtol=0)
        with (
            capture_attention(model, mode="joint", text_tokens=TEXT + 2),
            pytest.raises(InputError, match="the last 2 rows of its context as something else than text"),
        ):
            model(pictures(1, 4, 8, 8), 1, tokens.append_to(both))


def test_a_controlnet_beside_it(rows):
    context, tokens = rows
    model = unet()
    control = diffusers.ControlNetModel.from_unet(model).eval()
    torch.nn.init.normal_(control.controlnet_mid_block.weight)

    def run(rows):
        down, middle = control(pictures(1, 4, 8, 8), 1, rows, pictures(1, 3, 64, 64), return_dict=False)
        return model(
            pictures(1, 4, 8, 8), 1, rows, down_block_additional_residuals=down, mid_block_additional_residual=middle
        ).sample

    with torch.no_grad():
        bare = run(context)
        with capture_attention(model, text_tokens=TEXT), capture_attention(control, text_tokens=TEXT) as record:
            assert torch.equal(run(tokens.append_to(context)), bare)
        with capture_attention(model, text_tokens=TEXT):
            assert not torch.equal(run(tokens.append_to(context)), bare)  # the ControlNet saw the tokens
    assert len(record.layers()) == len(cross_attention_layers(control))


@pytest.mark.parametrize("mode", ["isolated", "joint"])
def test_a_context_without_tokens(mode, rows):
    context, _ = rows
    model = unet()
    for text_tokens in (TEXT, TEXT + 1):
        with (
            torch.no_grad(),
            capture_attention(model, mode=mode, text_tokens=text_tokens),
            pytest.raises(InputError, match=rf"got a context of 7 rows, and with {text_tokens} of text none is left"),
        ):
            model(pictures(1, 4, 8, 8), 1, context)


def test_a_layer_that_norms_its_context(rows):
    context, tokens = rows
    model = unet()
    layers = [model.get_submodule(name) for name in cross_attention_layers(model)]
    for layer in layers:
        layer.norm_cross = torch.nn.LayerNorm(WIDTH)
        torch.nn.init.normal_(layer.norm_cross.weight)

    def run(rows):
        return model(pictures(1, 4, 8, 8), 1, rows).sample

    with torch.no_grad(), capture_attention(model, text_tokens=TEXT) as record:
        run(tokens.append_to(context))
    for layer in record.layers():
        norm = model.get_submodule(layer.name).norm_cross
        inner = Tokens(norm(tokens.embedding))
        truth = softmax_of_all(layer.name, model, lambda _: run(context), norm(context), inner)
        torch.testing.assert_close(layer.probabilities, truth, atol=1e-6, rtol=0)
    layers[-1].norm_cross = torch.nn.GroupNorm(4, WIDTH)
    with pytest.raises(InputError, match="normalises its queries, or its context over all rows"):
        cross_attention_layers(model)


def stable_diffusion_3():
    return diffusers.SD3Transformer2DModel(
        sample_size=8, num_layers=1, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16,
        caption_projection_dim=16, pooled_projection_dim=16, dual_attention_layers=(0,),
    )  # fmt: skip


def flux():
    return diffusers.FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind", [stable_diffusion_3, flux, lambda: diffusers.UNet2DModel(block_out_channels=(32,) * 4)]
)
def test_models_without_cross_attention(kind):
    with pytest.raises(InputError, match="has no layer of cross-attention"), capture_attention(kind()):
        pass


def test_normalised_queries_are_refused():
    model = diffusers.HunyuanDiT2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        cross_attention_dim=WIDTH, cross_attention_dim_t5=WIDTH, pooled_projection_dim=4, hidden_size=16,
        text_len=4, text_len_t5=4,
    )  # fmt: skip
    with pytest.raises(InputError, match="HunyuanDiT2DModel normalises its queries"), capture_attention(model):
        pass


def test_shared_keys_are_refused():
    model = diffusers.StableAudioDiTModel(
        sample_size=4, in_channels=3, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        num_key_value_attention_heads=1, out_channels=3, cross_attention_dim=4, time_proj_dim=8,
        global_states_input_dim=8, cross_attention_input_dim=4,
    )  # fmt: skip
    with pytest.raises(InputError, match="StableAudioDiTModel shares its keys among"), capture_attention(model):
        pass


def test_a_context_that_reaches_the_picture_by_another_way():
    model = unet(addition_embed_type="text", addition_embed_type_num_heads=4)
    with pytest.raises(InputError, match="adds all rows of its context to the timestep"), capture_attention(model):
        pass
    with capture_attention(model, mode="joint"):
        pass


def test_rows_that_a_model_joins_to_the_text(rows):
    context, tokens = rows
    model = diffusers.I2VGenXLUNet(
        sample_size=8, block_out_channels=(64, 64), layers_per_block=1, norm_num_groups=8, cross_attention_dim=WIDTH,
        num_attention_heads=64, down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    ).eval()  # fmt: skip
    video, one = pictures(1, 4, 2, 8, 8), torch.tensor([1])
    with (
        torch.no_grad(),
        capture_attention(model, text_tokens=TEXT),
        pytest.raises(InputError, match="rows where the model was given 10: it joins rows of its own"),
    ):
        model(video, one, one, video, pictures(1, WIDTH), tokens.append_to(context))


def test_two_contexts(rows):
    context, tokens = rows
    model = diffusers.AudioLDM2UNet2DConditionModel(
        **SMALL | {"cross_attention_dim": ((None, WIDTH, 24),) * 2}, attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    with (
        torch.no_grad(),
        capture_attention(model, text_tokens=TEXT),
        pytest.raises(InputError, match="AudioLDM2UNet2DConditionModel reads two contexts"),
    ):
        model(pictures(1, 4, 8, 8), 1, tokens.append_to(context), encoder_hidden_states_1=pictures(1, 20, 24))


def test_layers_without_places(rows):
    """Such as those that see all frames of a video at once, or merge positions."""
    context, tokens = rows
    with (
        torch.no_grad(),
        capture_attention(model := unet(), text_tokens=TEXT),
        pytest.raises(InputError, match="ran outside of the captured model"),
    ):
        model.forward(pictures(1, 4, 8, 8), 1, tokens.append_to(context))
    model.conv_in.register_forward_hook(lambda module, args, out: out[..., :6])
    with (
        torch.no_grad(),
        capture_attention(model, text_tokens=TEXT),
        pytest.raises(InputError, match=r"attn2 has no map of the picture's places: 48 positions do not come from"),
    ):
        model(pictures(1, 4, 8, 8), 1, tokens.append_to(context))


def test_a_pipeline_is_no_model():
    with pytest.raises(InputError, match=r"captured of a model, such as pipe\.unet; not of a DDIMPipeline"):
        inspect.unwrap(layers_with_context)(diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler()))


def test_several_gpus_in_one_process():
    wrapped = torch.nn.DataParallel(unet())
    wrapped.device_ids = [0, 1]
    with pytest.raises(InputError, match="run a process for each GPU"), capture_attention(wrapped):
        pass


def test_a_forward_that_others_put_on_the_model(rows):
    """As DeepCache does."""
    context, tokens = rows
    model = unet()
    model.forward = partial(lambda inner, *args, **kwargs: inner(*args, **kwargs), model.forward)
    wrapped = torch.nn.DataParallel(model)
    wrapped.device_ids = []
    with torch.no_grad():
        bare = model(sample=pictures(1, 4, 8, 8), timestep=1, encoder_hidden_states=context).sample
        for called in (model, wrapped):
            with capture_attention(called, "mid_block.*", text_tokens=TEXT) as record:
                given = {"timestep": 1, "encoder_hidden_states": tokens.append_to(context)}
                assert torch.equal(called(sample=pictures(1, 4, 8, 8), **given).sample, bare)
            assert [layer.name for layer in record.layers()] == cross_attention_layers(model, "mid_block.*")
