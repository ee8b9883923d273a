"""Phrases and places: what is said to be somewhere is there, and the loss is least where attention goes there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.models import SMALL
from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.diffusion.backends.text import encode_phrases
from keyorbit.errors import InputError
from keyorbit.synthetic.objects import CATEGORIES, make_object
from keyorbit.synthetic.samples import SampleSpec, make_sample
from tiny_model.grounding import NOTHING, draw_phrases, grounding_loss, object_places, render_places
from tiny_model.model import TinyConfig, init_from, make_tiny, save_folder


@pytest.mark.parametrize("category", CATEGORIES)
def test_places_are_those_of_the_pictures(category):
    """Of all kinds: grounding is there for each, whichever are trained."""
    spec = SampleSpec(category, 5, 48)
    places, sample, thing = object_places(spec), make_sample(spec), make_object(category, 5)
    on = places.part != NOTHING
    alpha = np.concatenate([sample.input_image[None], sample.views])[..., 3]
    # A pixel's centre can slip through a gap between its four rays, or hit what none of them does; hardly ever.
    assert on[alpha == 255].mean() > 0.99
    assert on[alpha == 0].mean() < 0.002
    for number, part in enumerate(thing.parts):
        here = places.position[places.part == number] / 255 - 0.5
        low, high = part.shape.vertices.min(0) - 0.01, part.shape.vertices.max(0) + 0.01
        assert ((here >= low) & (here <= high)).all()
    # Seen from a camera, the place of a pixel is at that pixel.
    angle = np.deg2rad(-sample.input_azimuth_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    cameras = sample.input_camera.join(sample.cameras)
    for view in (0, 3):
        row, column = np.nonzero(on[view])
        world = (places.position[view][on[view]] / 255 - 0.5) @ turn.T
        xy = cameras.select([view]).project(torch.from_numpy(world).float())[0].numpy()
        assert np.abs(xy - np.stack([column + 0.5, row + 0.5], 1) / 48).max() < 0.02


def test_places_of_other_objects_are_refused(tmp_path):
    spec, path = SampleSpec("chair", 11, 24), tmp_path / "places.safetensors"
    render_places([spec], 1, path)
    for other in ([replace(spec, seed=12)], [replace(spec, size=32)], [spec, spec], []):
        with pytest.raises(InputError, match="places of other objects"):
            render_places(other, 1, path)


def test_a_phrase_is_truest_at_the_landmark_that_it_describes(tmp_path):
    """Landmarks are not used to make phrases: that they agree is a check of both."""
    spec = SampleSpec("chair", 11, 96)
    places, sample = render_places([spec], 1, tmp_path / "places.safetensors"), make_sample(spec)
    again = render_places([spec], 1, tmp_path / "places.safetensors")  # the kept file
    assert torch.equal(again.part, places.part)
    drawn = draw_phrases(places, torch.tensor([0]), 400, torch.Generator().manual_seed(0))
    (phrases,), (truths,) = words_of(places, drawn), drawn.truth(places.part, places.position)
    pairs = {
        "lower front left leg": "foot front left",
        "lower back right leg": "foot back right",
        "front right seat": "seat front right",
        "rear left seat": "seat back left",
    }
    found = {said: i for i, said in enumerate(phrases) if said in pairs}
    assert len(found) >= 2
    for said, i in found.items():
        landmark = sample.names.index(pairs[said])
        for view in np.nonzero(sample.visible[:, landmark])[0]:
            truth = truths[i][view]
            if truth.max() > 0.7:
                row, column = divmod(int(truth.argmax()), 96)
                place = np.array([column + 0.5, row + 0.5]) / 96
                assert np.abs(place - sample.keypoints_2d[view, landmark]).max() < 0.1, (said, view)
    assert truths.max() <= 1
    assert all(truth.amax() == 1 for truth in truths)  # each is fully true somewhere
    assert any(said.startswith("middle") for said in phrases)


def words_of(places, drawn):
    said = places.phrases()
    return [[said[number] for number in of_item] for of_item in drawn.number.tolist()]


def slow_truth(phrases, item, number, part, position):
    """Pixel by pixel, as :meth:`Phrases.truth` says it in words."""
    about, target = int(phrases.part[item, number]), phrases.target[item, number].double()
    on = part != NOTHING if about == NOTHING else part == about
    score = torch.full(part.shape, -torch.inf, dtype=torch.float64)
    for place in on.nonzero().tolist():
        at = position[tuple(place)].double() / 255 - 0.5
        if phrases.middle[item, number]:
            score[tuple(place)] = -(at - target).square().sum() / (2 * 0.04**2)
        else:
            score[tuple(place)] = at @ target / 0.04
    return (score - score.max()).exp()


def test_phrases_of_many_items_are_those_of_each(tmp_path):
    """The oracle: a pixel after the other; what the words say is what the truth is made of."""
    specs = [SampleSpec("mug", 2, 16), SampleSpec("car", 3, 16)]
    places = render_places(specs, 1, tmp_path / "places.safetensors")
    items = torch.tensor([1, 0, 1])
    drawn, again = (draw_phrases(places, items, 40, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(drawn.number, again.number)
    phrases = words_of(places, drawn)
    truth = drawn.truth(places.part[items], places.position[items])
    seen = set()
    for i, item in enumerate(items.tolist()):
        names = [part.name for part in make_object(specs[item].category, specs[item].seed).parts]
        noun = specs[item].category
        for number, said in enumerate(phrases[i]):
            slow = slow_truth(drawn, i, number, places.part[item], places.position[item])
            torch.testing.assert_close(truth[i, number], slow.float(), atol=1e-4, rtol=0)
            about = int(drawn.part[i, number])
            name, target = (noun if about == NOTHING else names[about]), drawn.target[i, number]
            if drawn.middle[i, number]:
                on = places.part[item] != NOTHING if about == NOTHING else places.part[item] == about
                at = places.position[item][on].float() / 255 - 0.5
                torch.testing.assert_close(target, (at.amin(0) + at.amax(0)) / 2)
                said_where = "middle "
            else:
                words = zip(("front", "left", "upper"), ("rear", "right", "lower"), target.tolist(), strict=True)
                said_where = "".join(f"{high if side > 0 else low} " for high, low, side in words if side)
            assert said in (said_where + name, f"{said_where}{name} of the {noun}")
            seen.add((about == NOTHING, bool(drawn.middle[i, number])))
    assert len(seen) == 4


def test_the_loss_is_a_divergence():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand((2, 3, 4, 8, 8), generator=generator)
    pooled = truth.reshape(2, 3, 4, 4, 2, 4, 2).sum((4, 6))
    wanted = pooled / pooled.sum((-2, -1), keepdim=True)
    perfect = 0.1 * wanted.log().transpose(1, 2)
    zero = grounding_loss(perfect, truth)
    torch.testing.assert_close(zero, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(grounding_loss(perfect + 7, truth), zero, atol=1e-5, rtol=0)
    flat = grounding_loss(torch.zeros_like(perfect), truth)
    slow = (wanted * (wanted * 16).log()).sum((-2, -1)).mean((1, 2))
    torch.testing.assert_close(flat, slow, atol=1e-5, rtol=1e-4)
    # Views in which the phrase is nowhere true do not count, not even through their gradient.
    truth[:, :, 1] *= 0.1
    maps = torch.randn((2, 4, 3, 4, 4), generator=generator, requires_grad=True)
    grounding_loss(maps, truth).sum().backward()
    assert maps.grad[:, 1].abs().max() == 0
    assert maps.grad[:, 0].abs().max() > 0
    assert grounding_loss(maps, 0 * truth).abs().max() == 0


def test_a_phrase_has_the_same_row_whatever_stands_beside_it(backend):
    parts = backend.parts
    both = encode_phrases(
        parts.tokenizer, parts.text_encoder, ["upper left leg", "a red chair with a red leg and arms"]
    )
    alone = encode_phrases(parts.tokenizer, parts.text_encoder, ["upper left leg"])
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)
    other = encode_phrases(parts.tokenizer, parts.text_encoder, ["upper right leg"])
    assert (other - alone).abs().max() > 1e-3
    full = backend.encode_prompts(["upper left leg"])
    ids = parts.tokenizer(["upper left leg"]).input_ids[0]
    torch.testing.assert_close(full[0, len(ids) - 1], alone[0], rtol=1e-4, atol=1e-5)


def test_attention_that_the_source_lacks_begins_as_nothing(model_folder, tmp_path):
    """A finer model started from a coarser one gives the coarser one's pictures."""
    coarse: TinyConfig = replace(SMALL, fine_attention=False)
    save_folder(make_tiny(coarse, seed=4), tmp_path / "coarse", SMALL.view_size)
    source = load_backend(tmp_path / "coarse").unet
    parts = make_tiny(SMALL, seed=2)
    init_from(parts, tmp_path / "coarse")
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((1, 4, 24, 16), generator=generator)
    context = torch.randn((1, 77, SMALL.width), generator=generator)
    arguments = (latents, torch.tensor([100]), context)
    with torch.no_grad():
        before = source(*arguments).sample
        torch.testing.assert_close(parts.unet.eval()(*arguments).sample, before, rtol=1e-4, atol=1e-5)
    assert any("up_blocks.1.attentions" in name for name, _ in parts.unet.named_modules())
