"""Texts as numbers: what a number stands for is what the tokenizer, the encoder and a slow draw make of its text."""

from collections import Counter

import pytest
import torch

from keyorbit.diffusion.backends.text import encode_phrases, encode_prompts, prompt_rows, rows_at_end
from tiny_model.texts import Captions, Texts, below, different

LONG = "front left leg of the chair " * 30
CAPTIONS = [["a chair", "a red chair"], ["a mug", "a blue mug", f"a mug {LONG}"], ["a chair"]]


def test_texts_are_tokenized_as_the_tokenizer_does(backend):
    tokenizer, encoder = backend.parts.tokenizer, backend.parts.text_encoder
    said = ["upper left leg", "", LONG, "a red chair", "upper left leg"]
    for whole, padding in ((True, "max_length"), (False, "longest")):
        texts = Texts.of(said, tokenizer, whole)
        assert texts.words == tuple(said[:4])
        assert texts.numbers_of(said).tolist() == [0, 1, 2, 3, 0]
        asked = {"padding": padding, "max_length": 77, "truncation": True, "return_tensors": "pt"}
        assert torch.equal(texts.ids, tokenizer(list(texts.words), **asked).input_ids)
        assert texts.lengths.tolist() == [len(ids) for ids in tokenizer(said[:4], truncation=True).input_ids]
    short = Texts.of(["a chair", "leg"], tokenizer, whole=False)
    assert torch.equal(
        rows_at_end(encoder, short.ids, tokenizer.eos_token_id), encode_phrases(tokenizer, encoder, short.words)
    )
    whole = Texts.of(["a chair", "leg"], tokenizer, whole=True)
    assert torch.equal(prompt_rows(encoder, whole.ids), encode_prompts(tokenizer, encoder, whole.words))


def test_captions_are_those_of_the_item_and_half_of_them_the_richest(backend, generator):
    captions = Captions.numbered(CAPTIONS, backend.parts.tokenizer)
    items = torch.arange(3).repeat(2000)
    told = torch.arange(6000) % 5 > 0
    found = [captions.texts.words[number] for number in captions.draw(items, told, generator).tolist()]
    assert all(said == "" for said, tell in zip(found, told, strict=True) if not tell)
    for item, own in enumerate(CAPTIONS):
        of_item = [said for said, i, tell in zip(found, items, told, strict=True) if i == item and tell]
        shares = {said: count / len(of_item) for said, count in Counter(of_item).items()}
        expected = dict.fromkeys(own, 0.5 / len(own))
        expected[own[-1]] += 0.5
        assert shares == pytest.approx(expected, abs=0.04)


def test_on_the_cpu_a_number_is_drawn_after_the_other():
    """The numbers of earlier versions of the recipe: the oracle is their loop."""
    limits = torch.tensor([3, 1, 10**6, 2])
    drawn = below(limits, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    assert drawn.tolist() == [int(torch.randint(limit, (1,), generator=generator)) for limit in limits.tolist()]
    assert len(below(limits[:0], generator)) == 0


def test_different_numbers_keep_their_order():
    numbers = torch.tensor([7, 2, 7, 5, 2])
    kept, where = different(numbers)
    assert kept.tolist() == [7, 2, 5]
    assert torch.equal(kept[where], numbers)
