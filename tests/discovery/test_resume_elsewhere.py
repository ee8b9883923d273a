"""A run that goes on in another type of numbers, or on another device, is the same run, and says so."""

from copy import copy

import pytest

from keyorbit.diffusion.backends.loading import load_backend
from keyorbit.discovery.choices import CHECKPOINT
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.discover import discover
from keyorbit.errors import InputError
from keyorbit.storage.checkpoint import load_checkpoint

CONFIG = DiscoverConfig(num_tokens=2, num_candidates=2, steps=4, save_every=2, batch=2, method="consistency")


@pytest.mark.parametrize("dtypes", [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")])
def test_another_type_goes_on_with_a_warning(dtypes, model_folder, objects, tmp_path, caplog):
    first, then = (load_backend(model_folder, "cpu", dtype) for dtype in dtypes)
    discover(first, objects, CONFIG, tmp_path, watch=lambda step, tokens: step < 2)
    metadata = load_checkpoint(tmp_path / CHECKPOINT)[1]
    assert metadata["step"] == 2
    # The bytes of a run on the CPU in float32 are what they were before runs told of it.
    assert metadata.get("place") == (None if dtypes[0] == "float32" else "bfloat16 on cpu")
    discover(then, objects, CONFIG, tmp_path, resume=True)
    assert load_checkpoint(tmp_path / CHECKPOINT)[1]["step"] == 4
    told = [record.message for record in caplog.records if "not bit for bit" in record.message]
    if dtypes[0] == dtypes[1]:
        assert told == []
    else:
        (line,) = told
        assert f"written in {dtypes[0]} on cpu, and the run goes on in {dtypes[1]} on cpu" in line


def test_a_run_of_an_earlier_version_goes_on(backend, objects, tmp_path):
    before, other = copy(backend), copy(backend)
    before.fingerprint, other.fingerprint = backend.older_fingerprint(), "other"
    discover(before, objects, CONFIG, tmp_path, watch=lambda step, tokens: step < 2)
    assert load_checkpoint(tmp_path / CHECKPOINT)[1]["settings"]["model"] == before.fingerprint
    discover(backend, objects, CONFIG, tmp_path, resume=True)
    assert load_checkpoint(tmp_path / CHECKPOINT)[1]["settings"]["model"] == backend.fingerprint
    other.older_fingerprint = str
    with pytest.raises(InputError, match=r"other settings \(model\)"):
        discover(other, objects, CONFIG, tmp_path, resume=True)
