"""The report on the full-size model: the document's table, exactly, and every claim's verdict."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from keyorbit.diffusion.captured import LayerRecord
from keyorbit.diffusion.inspection.architectures import load_architecture
from keyorbit.diffusion.inspection.claims import judge
from keyorbit.diffusion.inspection.drift import Drift
from keyorbit.diffusion.inspection.observe import recorded
from keyorbit.diffusion.inspection.passes import install_reference, run_passes
from keyorbit.diffusion.inspection.report_text import markdown, show
from keyorbit.diffusion.inspection.shape_report import inspect_model, with_measurements
from keyorbit.diffusion.inspection.tilings import analyse_grid, misplaced
from keyorbit.diffusion.inspection.variants import Cost
from keyorbit.geometry.views import Layout

REPORT = Path(__file__).parents[2] / "docs" / "shape-report.md"


@pytest.fixture(scope="module")
def full():
    return inspect_model("zero123plus-v1.2")


def verdicts(report):
    return [claim.verdict for claim in report.claims]


def test_the_documents_shape_table(full):
    seen = full.observation
    assert seen.text_embeddings == (1, 77, 1024)
    assert seen.appended.context == (1, 93, 1024)
    assert seen.bare.latents == {"condition": (1, 4, 64, 64), "grid": (1, 4, 120, 80)}
    for unet_pass, sides in (("condition", [(64, 64), (32, 32), (16, 16), (8, 8)]), ("grid", None)):
        sides = sides or [(120, 80), (60, 40), (30, 20), (15, 10)]
        levels = list(zip(sides, (5, 10, 20, 20), (320, 640, 1280, 1280), strict=True))
        # Two layers a block on the way down, one in the middle, three on the way up.
        order = [levels[i] for i in (0, 0, 1, 1, 2, 2, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0)]
        for run, rows in ((seen.bare, 77), (seen.appended, 93), (seen.isolated, 77), (seen.joint, 93)):
            layers = run.of(unet_pass)
            assert len(layers) == 16
            for layer, (size, heads, width) in zip(layers, order, strict=True):
                positions = size[0] * size[1]
                assert (layer.size, layer.heads, layer.head_width) == (size, heads, 64)
                assert layer.query == (1, positions, width)
                assert layer.key == layer.value == (1, rows, width)
                assert layer.probabilities == (heads, positions, rows)


def test_dependence_on_the_tokens(full):
    seen = full.observation
    assert (seen.bare.output_moved, seen.isolated.output_moved) == (False, False)
    assert (seen.appended.output_moved, seen.joint.output_moved) == (True, True)
    assert not any(layer.moved for layer in (*seen.bare.layers, *seen.isolated.layers))
    for unet_pass in ("condition", "grid"):
        # Only the first layer's queries are made before any token was read.
        assert ["query" in layer.moved for layer in seen.joint.of(unet_pass)] == [False] + [True] * 15
        assert all({"key", "value", "probabilities"} <= layer.moved for layer in seen.joint.of(unet_pass))
    assert all(layer.reaches_tokens for run in (seen.isolated, seen.joint) for layer in run.recorded)


def test_flops_against_hand_arithmetic(full):
    """Every convolution, linear layer and attention product, counted from the shapes that went through it."""
    unet = load_architecture("zero123plus-v1.2").build_unet()
    install_reference(unet)
    counted, cross, rows = [], [], {}

    def weighted(module, args, out):
        inputs = module.weight[0].numel()
        counted.append(2 * out.numel() * inputs)

    def attended(name, part):
        def note(module, args, out):
            rows[name, part] = out.shape[1]
            if part == "to_v":  # the last of the three: query·key and probabilities·value
                counted.append(4 * rows[name, "to_q"] * rows[name, "to_k"] * out.shape[2])
                if name.endswith("attn2"):
                    cross.append(counted[-1])

        return note

    for name, module in unet.named_modules():
        parent, _, part = name.rpartition(".")
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(weighted)
            if ".attn2." in name:
                module.register_forward_hook(lambda m, a, out: cross.append(2 * out.numel() * m.weight[0].numel()))
        if part in ("to_q", "to_k", "to_v"):
            module.register_forward_hook(attended(parent, part))
    shapes = full.observation.bare.latents
    latents = {which: torch.empty(shape, device="meta") for which, shape in shapes.items()}
    run_passes(unet, latents, torch.empty(1, 77, 1024, device="meta"))
    assert full.observation.bare.flops == sum(counted)
    assert full.observation.bare.cross_attention_flops == sum(cross)
    added = sum(4 * 16 * layer.query[2] * (1024 + layer.query[1]) for layer in full.observation.bare.layers)
    assert full.observation.appended.flops - full.observation.bare.flops == added
    # Recording comes on top, in either mode.
    assert full.observation.isolated.flops > full.observation.bare.flops
    assert full.observation.joint.flops > full.observation.appended.flops


def test_memory_against_hand_arithmetic(full):
    rows = {"condition": (4096, 1024, 256, 64), "grid": (9600, 2400, 600, 150)}
    positions = sum(5 * (a + b + c) + d for a, b, c, d in rows.values())
    every_head = sum(5 * (5 * a + 10 * b + 20 * c) + 20 * d for a, b, c, d in rows.values())
    memory = full.memory
    assert memory.all_columns == 93 * every_head
    assert memory.token_columns == 16 * every_head
    assert memory.token_columns_head_mean == 16 * positions
    width = 2 * 5 * (320 + 640 + 1280) + 2 * 1280
    assert (memory.keys_values_old, memory.keys_values_new) == (2 * 77 * width, 2 * 93 * width)
    # A record may hold more, for instance the text's normaliser, but never less than its columns.
    assert memory.record >= memory.token_columns


def test_a_slice_keeps_all_of_what_it_is_cut_from():
    def held(logits, normalizer):
        query = torch.zeros(1, 1, 2, 3)
        layer = LayerRecord(
            name="x", unet_pass="grid", size=(1, 2), query=query, token_logits=logits, text_normalizer=normalizer
        )
        return recorded(layer, set()).held - query.numel()

    everything = torch.zeros(1, 1, 2, 10)
    assert held(everything[..., 7:], torch.zeros(1, 1, 2)) == 20 + 2
    assert held(everything[..., 7:].clone(), torch.zeros(1, 1, 2)) == 6 + 2
    assert held(everything[..., 7:], everything[..., 0]) == 20


def test_every_claim_of_the_document(full):
    claims = {claim.claim: claim for claim in full.claims}
    assert len(claims) == 11
    assert verdicts(full) == [
        *("confirmed", "depends", "depends", "confirmed", "confirmed", "refuted"),
        *("confirmed", "depends", "depends", "depends", "depends"),
    ]
    numbers = " ".join(claim.number for claim in full.claims)
    for number in ("+20.8 %", "in 32 of 32", "in 30 (joint)", "5/10/20/20", "9600/2400/600/150", "3 × 2 → 40 × 40"):
        assert number in numbers
    assert "2 × 3 → does not divide" in numbers


def test_verdicts_follow_what_is_seen(full, model_folder):
    seen, tilings, stored = full.observation, full.grid.tilings, full.memory.all_columns

    def slowdown(ratio):
        costs = [Cost("bare", (1.0, 2.0), None), Cost("isolated", (ratio, 2 * ratio), None)]
        return judge(seen, tilings, stored, costs)[9]

    assert slowdown(1.07).verdict == "confirmed"
    assert "+7.0 %" in slowdown(1.07).number
    assert slowdown(1.01).verdict == slowdown(1.5).verdict == "refuted"
    drift = [Drift(16, 1.0, (31.0, 28.25), (0.1, 0.2), 0.0, True)]
    assert "28.2 to 31.0 dB" in judge(seen, tilings, stored, drift=drift)[8].number
    # As the document would have it: a latent 80 high and 120 wide.
    wide = {**seen.bare.latents, "grid": (1, 4, 80, 120)}
    flat = analyse_grid(Layout(2, 3), wide["grid"], [])
    assert judge(replace(seen, bare=replace(seen.bare, latents=wide)), flat.tilings, stored)[5].verdict == "confirmed"
    # A silent UNet: whatever the tokens are, nothing moves.
    still = replace(seen, appended=seen.isolated, joint=seen.isolated)
    assert [judge(still, tilings, stored)[i].verdict for i in (1, 2, 7, 8)] == ["refuted", *["confirmed"] * 3]
    # One layer whose columns have no gradient, or that shows one column too few: not in every layer.
    first, *others = seen.joint.recorded
    for spoilt in (
        replace(first, reaches_tokens=False),
        replace(first, token_logits=(*first.token_logits[:-1], seen.tokens - 1)),
    ):
        run = replace(seen.joint, recorded=(spoilt, *others))
        for unreached in (replace(seen, joint=run), replace(seen, isolated=run)):
            assert judge(unreached, tilings, stored)[6].verdict == "refuted"
    assert "31 (joint) of 32" in judge(replace(seen, joint=run), tilings, stored)[6].number
    assert judge(seen, tilings, stored)[6].verdict == "confirmed"
    small = inspect_model(model_folder, tokens=4)
    assert verdicts(small)[0] == "depends"
    assert verdicts(small)[3:6] == ["refuted"] * 3


def test_a_single_view_model_has_one_pass_and_one_view():
    report = inspect_model("stable-diffusion-1.5")
    assert len(report.observation.bare.layers) == 16
    assert {layer.unet_pass for layer in report.observation.bare.layers} == {"grid"}
    assert [layer.head_width for layer in report.observation.bare.layers[:5:2]] == [40, 80, 160]
    assert (report.grid.view, report.grid.misplaced) == ((64, 64), 0.0)
    assert verdicts(report)[5] == "refuted"


@pytest.mark.parametrize(
    ("layout", "size"), [((3, 2), (120, 80)), ((3, 2), (6, 6)), ((1, 6), (4, 24)), ((1, 1), (5, 7))]
)
def test_misplaced_positions_one_at_a_time(layout, size):
    (rows, cols), (height, width) = layout, size
    view_height, view_width = height // rows, width // cols
    moved = 0
    for position in range(height * width):
        row, col = divmod(position, width)
        right = row // view_height * cols + col // view_width
        row, col = divmod(position, rows * view_width)
        moved += right != row // view_height * rows + col // view_width
    assert misplaced(Layout(rows, cols), size) == pytest.approx(moved / (height * width))


def test_the_layout_that_gives_square_views_is_the_models(full):
    assert [tiling.layout for tiling in full.grid.tilings if tiling.square] == [Layout(3, 2)]
    assert full.grid.view_sizes == {(120, 80): (40, 40), (60, 40): (20, 20), (30, 20): (10, 10), (15, 10): (5, 5)}


def test_json_is_stable(full):
    costs = (Cost("bare", (2.0,), 10), Cost("isolated", (3.0,), 11))
    drift = (Drift(1, 1.0, (30.0,), (0.1,), 0.0, True),)
    data = json.loads(json.dumps(with_measurements(full, costs, drift).to_dict(), allow_nan=False))
    assert data["format"] == "keyorbit-inspect-1"
    assert set(data) == {
        *("format", "model", "tokens", "text_tokens", "parameters", "prediction_type", "text_embeddings", "latents"),
        *("layers", "grid", "memory_bytes", "flops", "claims", "measured", "drift"),
    }
    assert set(data["layers"][0]) == {"name", "pass", "size", "heads", "head_width", "old", "new", "moved_by_tokens"}
    assert data["layers"][0]["new"]["probabilities"] == [5, 4096, 93]
    assert data["memory_bytes"]["all_columns"] == {"float32": 224_494_560, "float16": 112_247_280}
    assert set(data["flops"]) == {"bare", "appended", "isolated", "joint"}
    assert set(data["claims"][0]) == {"claim", "verdict", "number"}
    assert data["measured"][1]["slower_than_bare"] == 1.5
    assert data["drift"][0]["isolated_equal"] is True


def test_the_report_in_the_documentation_is_current(full):
    assert REPORT.read_text(encoding="utf-8") == markdown(full), "run: make shape-report"


def test_tables_on_a_terminal_and_markdown_elsewhere(full):
    measured = with_measurements(
        full, (Cost("bare", (2.0,), 10), Cost("joint", (3.0,), None)), (Drift(1, 4.0, (30.0,), (0.1,), 0.0, True),)
    )
    screen, file = io.StringIO(), io.StringIO()
    show(measured, Console(file=screen, force_terminal=True, width=200))
    show(measured, Console(file=file))
    assert file.getvalue() == markdown(measured)
    for words in ("Measured", "Drift of the generated views", "bit-identical", "1.500"):
        assert words in file.getvalue()
        assert words in screen.getvalue()
    assert "┃" in screen.getvalue()
    assert "┃" not in file.getvalue()
