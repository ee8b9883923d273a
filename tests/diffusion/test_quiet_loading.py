"""Loading a model from the disk draws no bars of the libraries below, and leaves their switches as they were."""

import diffusers
import pytest
import transformers
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from keyorbit.diffusion.backends.components import without_bars
from keyorbit.diffusion.backends.loading import load_backend

LIBRARIES = transformers.utils.logging, diffusers.utils.logging


@pytest.fixture(autouse=True)
def shown():
    """All draw bars, as in a program that has just begun."""
    for one in LIBRARIES:
        one.enable_progress_bar()
    enable_progress_bars()
    yield
    enable_progress_bars()


def test_a_model_is_loaded_without_a_bar(model_folder, capfd):
    load_backend(model_folder)
    assert "%" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("hub", [True, False])
def test_the_switches_are_as_they_were(hub):
    if not hub:
        disable_progress_bars()
    LIBRARIES[1].disable_progress_bar()
    with without_bars():
        assert not any(one.is_progress_bar_enabled() for one in LIBRARIES)
    assert [one.is_progress_bar_enabled() for one in LIBRARIES] == [True, False]
    assert are_progress_bars_disabled() is not hub
