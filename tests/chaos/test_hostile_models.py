"""Model folders, wrong in one place: one sentence, or a model that runs."""

import json
import shutil
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.hostile import answer
from helpers.spoiling import FEWER, damaged, hostile_tensor, outcome, rewritten, spoiled
from keyorbit.diffusion.backends import configurations as known
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.inspection.shape_report import inspect_model
from keyorbit.diffusion.precision import probe, probe_tokens

KINDS = {
    "model_index.json": known.Zero123PlusIndex,
    "unet/config.json": known.UNetConfig,
    "vae/config.json": known.VaeConfig,
    "text_encoder/config.json": known.TextConfig,
    "vision_encoder/config.json": known.VisionConfig,
    "scheduler/scheduler_config.json": known.SchedulerConfig,
    "feature_extractor_vae/preprocessor_config.json": known.PreprocessorConfig,
    "feature_extractor_clip/preprocessor_config.json": known.PreprocessorConfig,
    "tokenizer/tokenizer_config.json": None,
}
SINGLE = [name for name in KINDS if not name.startswith(("vision", "feature"))]


def used(folder):
    """Load the model, and run all of its parts once."""
    backend = load_backend(folder)
    probe(backend, probe_tokens(backend))


@pytest.fixture(scope="module")
def copies(model_folder, stable_diffusion_folder, tmp_path_factory):
    """A fresh copy of either model, always in the same place."""
    place = tmp_path_factory.mktemp("copies")

    def fresh(kind):
        source = {"zero123plus": model_folder, "stable_diffusion": stable_diffusion_folder}[kind]
        shutil.rmtree(place / kind, ignore_errors=True)
        return shutil.copytree(source, place / kind)

    return fresh


MODELS = st.sampled_from(["zero123plus", "stable_diffusion"])


@FEWER
@given(data=st.data(), model=MODELS)
def test_every_field_of_every_configuration(data, model, copies, tally):
    folder = copies(model)
    name = data.draw(st.sampled_from(list(KINDS) if model == "zero123plus" else SINGLE))
    more = [item.name for item in fields(KINDS[name])] if KINDS[name] else []
    values = data.draw(spoiled(json.loads((folder / name).read_text()), more))[1]
    (folder / name).write_text(json.dumps(values))
    tally["models", f"a field of {name}", outcome(lambda: used(folder))] += 1


@FEWER
@given(data=st.data(), model=MODELS)
def test_every_configuration_that_is_inspected(data, model, copies, tally):
    folder = copies(model)
    name = data.draw(st.sampled_from([x for x in SINGLE if not x.startswith("tokenizer")]))
    values = data.draw(spoiled(json.loads((folder / name).read_text())))[1]
    (folder / name).write_text(json.dumps(values))
    tally["models", f"a field of {name} (inspect)", outcome(lambda: inspect_model(folder, 2))] += 1


@FEWER
@given(data=st.data(), model=MODELS)
def test_every_byte_of_every_file(data, model, copies, tally):
    folder = copies(model)
    path = data.draw(st.sampled_from(sorted(x for x in folder.rglob("*") if x.is_file() and x.suffix != ".md")))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    tally["models", "damaged bytes", outcome(lambda: used(folder))] += 1


@FEWER
@given(data=st.data(), model=MODELS)
def test_every_weight(data, model, copies, tally):
    from safetensors.torch import load_file

    folder = copies(model)
    path = data.draw(st.sampled_from(sorted(folder.glob("*/*.safetensors"))))
    tensors = load_file(path)
    name = data.draw(st.sampled_from(sorted(tensors)))
    made = data.draw(hostile_tensor(tensors[name]))
    rewritten(path, tensors | {name: made}, format="pt")
    come = outcome(lambda: used(folder))
    tally["models", "a weight", come] += 1
    if made.is_floating_point() and not made.isfinite().all():
        assert come == "one sentence"


def change(folder, name, **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def folder_for_file(folder):
    (folder / "unet/config.json").unlink()
    (folder / "unet/config.json").mkdir()


EXTRACTOR = "feature_extractor_vae/preprocessor_config.json"
CASES = {
    r"view_size cannot be 0; it must be a whole number >= 1 and <= 4096": ("model_index.json", {"view_size": 0}),
    r"view_size cannot be 'a'": ("model_index.json", {"view_size": "a"}),
    r"view_size cannot be None": ("model_index.json", {"view_size": None}),
    r"views of 15 pixels, and a vae that needs a multiple of 2": ("model_index.json", {"view_size": 15}),
    r"version cannot be 7; it must be a string": ("model_index.json", {"version": 7}),
    r"ramping_coefficients\[1\] cannot be 'a'": ("model_index.json", {"ramping_coefficients": [0, "a"]}),
    r"num_train_timesteps cannot be 10; it must be a whole number >= 1000": (
        "scheduler/scheduler_config.json",
        {"num_train_timesteps": 10},
    ),
    r"beta_end cannot be -1": ("scheduler/scheduler_config.json", {"beta_end": -1}),
    r"nothing is left of the picture": ("scheduler/scheduler_config.json", {"beta_end": 0.99}),
    r"prediction_type cannot be 'x'; it must be 'epsilon' or 'sample' or 'v_prediction'": (
        "scheduler/scheduler_config.json",
        {"prediction_type": "x"},
    ),
    r"image_mean cannot be \[0.5\]; it must be a list of length 3": (EXTRACTOR, {"image_mean": [0.5]}),
    r"image_std\[0\] cannot be 0": (EXTRACTOR, {"image_std": [0, 1, 1]}),
    r"crop_size\.height cannot be 0": (EXTRACTOR, {"crop_size": {"height": 0, "width": 8}}),
    r"describes a network of more than [\d,]+ weights; beside it lie [\d,]+": (
        "text_encoder/config.json",
        {"hidden_size": 2**20},
    ),
    r"block_out_channels\[0\] cannot be 0": ("unet/config.json", {"block_out_channels": [0, 32]}),
    r"class_embed_type cannot be 'identity'; it must be None": ("unet/config.json", {"class_embed_type": "identity"}),
    r"in_channels cannot be 10{9}": ("unet/config.json", {"in_channels": 10**9}),
}


@pytest.mark.parametrize("words", CASES)
def test_the_field_is_named_with_what_it_may_hold(words, copies):
    folder = copies("zero123plus")
    name, values = CASES[words]
    change(folder, name, **values)
    with pytest.raises(ValueError, match=words) as caught:
        load_backend(folder)
    assert str(folder) in str(caught.value)


def test_the_command_line_says_it_in_one_sentence(copies, chairs, tmp_path, tally):
    for spoil in (
        folder_for_file,
        lambda folder: (folder / "model_index.json").write_text("[" * 100_000),
        lambda folder: (folder / "vae/config.json").write_bytes(b"\xff\xfe"),
        lambda folder: change(folder, "unet/config.json", layers_per_block=10**9),
    ):
        folder = copies("zero123plus")
        spoil(folder)
        for words in (
            ["detect", "tiny", min(chairs.glob("*/cond.png")), "--out", tmp_path / "new"],
            ["inspect", "--model"],
        ):
            came = answer(*words, *(["--model", folder] if words[0] == "detect" else [folder]))
            assert came.sentence, came
            assert not (tmp_path / "new").exists()
            tally["models", words[0], "one sentence"] += 1


def test_published_variants_load(copies, backend):
    folder = copies("zero123plus")
    side = backend.parts.vision_encoder.config.image_size
    for name in ("feature_extractor_vae", "feature_extractor_clip"):
        path = folder / name / "preprocessor_config.json"
        values = json.loads(path.read_text())
        del values["image_processor_type"]
        old = {"feature_extractor_type": "CLIPFeatureExtractor", "crop_size": side, "size": side}
        path.write_text(json.dumps(values | old))
    change(folder, "unet/config.json", class_embed_type=None, num_class_embeds=None, upcast_attention=None)
    loaded = load_backend(folder)
    assert torch.equal(probe(loaded, probe_tokens(loaded)).heatmaps, probe(backend, probe_tokens(backend)).heatmaps)
    folder = copies("stable_diffusion")
    infinite = {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": float("-inf")}
    change(folder, "scheduler/scheduler_config.json", **infinite)
    change(folder, "text_encoder/config.json", eos_token_id=2, bos_token_id=0, pad_token_id=1, torch_dtype="float32")
    load_backend(folder)
