"""The same weights are the same model, however they lie on the disk; others are another."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from keyorbit.diffusion.backends.fingerprint import fingerprint, fingerprint_of, older_fingerprint
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.tokens_info import TokensInfo
from keyorbit.diffusion.weights import check_weights
from keyorbit.errors import InputError

PARTS = ("unet", "vae", "text_encoder", "vision_encoder")


@pytest.fixture
def folder(model_folder, tmp_path):
    return shutil.copytree(model_folder, tmp_path / "model")


def weights_of(folder, part):
    (path,) = (folder / part).glob("*.safetensors")
    return path


def rewrite(folder, part, change):
    path = weights_of(folder, part)
    save_file({name: x.contiguous() for name, x in change(load_file(path)).items()}, path, {"format": "pt"})


def other_files(folder):
    for place in ("safety_checker/model", "controlnet/diffusion_pytorch_model", "lora/pytorch_lora_weights"):
        (folder / place).parent.mkdir()
        save_file({"a": torch.zeros(1)}, folder / f"{place}.safetensors")
    shutil.copy(weights_of(folder, "vae"), folder / "unet" / "diffusion_pytorch_model.non_ema.safetensors")


def half_variant(folder):
    for part in PARTS:
        path = weights_of(folder, part)
        path.rename(path.with_suffix(".fp16.safetensors"))


def both_variants(folder):
    for part in PARTS:
        path = weights_of(folder, part)
        shutil.copy(path, path.with_suffix(".fp16.safetensors"))


def shards(folder):
    parts = load_backend(folder).parts
    for part in PARTS:
        weights_of(folder, part).unlink()
        getattr(parts, part).save_pretrained(folder / part, max_shard_size="10KB")
        assert list((folder / part).glob("*-00002-of-*.safetensors"))


def old_names(folder):
    """As diffusers and transformers wrote them when the published models were made."""
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}

    def attention(name):
        for now, then in old.items():
            name = name.replace(now, then)
        return name

    rewrite(folder, "vae", lambda weights: {attention(name): x for name, x in weights.items()})
    rewrite(
        folder,
        "text_encoder",
        lambda weights: (
            {f"text_model.{name.removeprefix('text_model.')}": x for name, x in weights.items()}
            | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
        ),
    )


def more_tensors(folder):
    rewrite(folder, "unet", lambda weights: weights | {"class_embedding.weight": torch.rand(3, 4)})
    rewrite(folder, "vision_encoder", lambda weights: weights | {"logit_scale": torch.tensor(2.0)})


def links(folder):
    """As the Hub's cache has them."""
    for path in folder.glob("*/*.safetensors"):
        blob = folder.parent / "blobs" / f"{path.parent.name}{path.stem}"
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(blob)


SAME = [other_files, half_variant, both_variants, shards, old_names, more_tensors, links]


@pytest.mark.parametrize("change", SAME, ids=lambda change: change.__name__)
def test_the_same_weights_are_the_same_model(folder, backend, change):
    change(folder)
    assert load_backend(folder).fingerprint == fingerprint(folder) == backend.fingerprint


def test_parts_in_memory_have_the_fingerprint_of_their_folder(model_folder, backend):
    for dtype in ("float32", "float16"):
        parts = load_backend(model_folder, dtype=dtype).parts
        assert fingerprint_of({part: getattr(parts, part).state_dict() for part in PARTS}) == backend.fingerprint


def last_number(weights):
    """A single number, of those that count."""
    x = next(x for x in weights.values() if x.ndim > 1)
    x.view(-1)[-1] *= 2
    return weights


def one_tensor(weights):
    x = next(x for x in weights.values() if x.ndim > 1)
    x += 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return weights


def exchanged(weights):
    """Two tensors of one shape change places."""
    first = next(iter(weights))
    other = next(name for name in weights if name != first and weights[name].shape == weights[first].shape)
    return weights | {first: weights[other], other: weights[first]}


OTHER = [(part, one_tensor) for part in PARTS] + [("unet", last_number), ("vae", exchanged)]


@pytest.mark.parametrize(("part", "change"), OTHER)
def test_other_weights_are_another_model(folder, backend, part, change):
    rewrite(folder, part, change)
    assert fingerprint(folder) != backend.fingerprint


def finer(weights):
    """Numbers that float16 does not have."""
    generator = torch.Generator().manual_seed(1)
    return {name: x.float() + 1e-4 * torch.randn(x.shape, generator=generator) for name, x in weights.items()}


def test_a_float16_copy_is_the_same_model_and_a_bfloat16_copy_is_not(folder):
    for part in PARTS:
        rewrite(folder, part, finer)
    before = fingerprint(folder)
    rewrite(folder, "unet", lambda weights: {name: x.half() for name, x in weights.items()})
    assert fingerprint(folder) == before
    rewrite(folder, "unet", lambda weights: {name: x.bfloat16() for name, x in weights.items()})
    assert fingerprint(folder) != before


def test_missing_and_damaged_weights_are_named(folder):
    path = weights_of(folder, "vae")
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(InputError, match=r"vae.* cannot be (read|loaded)"):
        fingerprint(folder)
    path.unlink()
    with pytest.raises(InputError, match="vae holds no weights as safetensors"):
        fingerprint(folder)
    rewrite(folder, "unet", lambda weights: {name: x for name, x in weights.items() if name != "conv_in.bias"})
    with pytest.raises(InputError, match=r"unet lack 1 of its tensors, such as conv_in\.bias"):
        fingerprint(folder)


def test_tokens_of_earlier_versions_and_of_other_weights(backend, model_folder, caplog):
    check_weights(TokensInfo(), backend)
    check_weights(TokensInfo(model_fingerprint=older_fingerprint(model_folder)), backend)
    assert not caplog.records
    other = TokensInfo(model="there", model_fingerprint="other")
    with pytest.raises(InputError, match=rf"on model there \(other\), not on .*\({backend.fingerprint}\).*--force"):
        check_weights(other, backend)
    check_weights(other, backend, force=True)
    assert "used on it all the same" in caplog.text
