"""What the tiny model is trained on."""

import pytest
import torch

from keyorbit.synthetic.choices import MAX_OBJECTS
from keyorbit.synthetic.objects import CATEGORIES, make_object
from tiny_model.model import WORDS
from tiny_model.training_data import Stock, training_seed, training_specs


def test_a_category_that_is_named_twice_trains_twice_as_often(generator):
    specs = training_specs(("chair", "car"), 50, 0, 16)
    drawn = Stock(("chair", "car", "car"), 50).draw(6000, generator)
    shares = torch.bincount(drawn, minlength=100) / 6000
    assert all(spec.category == ("chair", "car")[i % 2] for i, spec in enumerate(specs))
    assert abs(shares[0::2].sum() - 1 / 3) < 0.03
    assert abs(shares[1::2].sum() - 2 / 3) < 0.03
    assert shares[0::2].min() > 0.002
    assert shares[1::2].max() < 0.025


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_tokenizer_knows_every_word(category):
    things = [make_object(category, seed) for seed in range(60)]
    captions = [thing.captions[-1] for thing in things]
    words = {word for caption in captions for word in caption.split()}
    words |= {word for thing in things for part in thing.parts for word in part.name.split()}
    assert words - set(WORDS) - {","} == set()


def test_the_training_objects_are_in_no_data_set_of_the_command():
    assert training_seed(0, 0) > 999 * MAX_OBJECTS + MAX_OBJECTS - 1
