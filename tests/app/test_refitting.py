"""The model's part of the annotators' loop: objects are read, and tokens refitted, behind the page."""

import shutil
import time
from functools import partial

import pytest
import torch

from keyorbit.app.annotating import Annotating
from keyorbit.app.exporting import archived
from keyorbit.app.refitting import Refitting
from keyorbit.detection.marking import fit_marks
from keyorbit.diffusion.tokens import Tokens
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.discovery.marks_config import MarkConfig
from keyorbit.objects.marks import Annotations, read_annotations


@pytest.fixture
def loop(backend, objects, tmp_path):
    """The loop over three chairs, all read; its thread is not begun."""
    tokens = untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3))
    model = Refitting(backend, tokens, objects)
    names = [thing.name for thing in objects]
    work = Annotating(names, [f"keypoint_0{k}" for k in range(3)], tmp_path / "marks.json", Annotations())
    told = []
    model.read_first(work, 50, lambda i, n: told.append((i, n)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    yield model, work
    model.close()


def quiet(model):
    """Wait until the thread has nothing left to do."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        time.sleep(0.02)
        if not model.words and not model._wake.is_set() and model._wanted == model._fitted:
            return
    raise AssertionError(f"still at work: {model.words}")


def on_object(seen):
    """A place in the first view that is on the object."""
    rows, columns = seen.masks[0].nonzero(as_tuple=True)
    middle = len(rows) // 2
    height, width = seen.masks.shape[-2:]
    return (float(columns[middle]) + 0.5) / width, (float(rows[middle]) + 0.5) / height


def test_marks_refit_the_tokens_behind_the_page(loop, monkeypatch):
    model, work = loop
    # How well tokens are fitted is tested elsewhere: a few steps.
    few = partial(fit_marks, config=MarkConfig(helpers=2, planting=2, steps=1))
    monkeypatch.setattr("keyorbit.detection.marking.fit_marks", few)
    first = work.state.current
    assert first == work.queue()[0]
    model.start(work)
    work.place(0, "keypoint_01", 0, on_object(work.seen(first)))
    quiet(model)
    assert model.version == 0  # while the object is shown, its marks do not count
    work.add(1, "left ear")
    work.place(2, "left ear", 0, on_object(work.seen(first)))
    work.accept(3)
    quiet(model)
    assert (model.version, model.trouble) == (1, "")
    kept, refitted = model.base.embedding.detach(), model.tokens.embedding.detach()
    assert torch.equal(refitted[[0, 2]], kept[[0, 2]])
    assert not torch.equal(refitted[1], kept[1])
    assert len(refitted) == 4
    assert model.tokens.info.names[3] == "left ear"
    others = [name for name in work.objects if name not in (first, work.state.current)]
    assert {work.seen(name).version for name in others} == {1}
    assert [point.name for point in work.points(others[0]) if point.xy] == list(work.names)
    # One step back, and the tokens are the run's again.
    for revision in range(4, 8):
        work.undo(revision)
    work.skip(8)
    quiet(model)
    assert (model.version, work.marks) == (2, ())
    assert torch.equal(model.tokens.embedding, model.base.embedding)


def test_a_fit_that_fails_is_told_and_the_next_one_is_tried(loop, monkeypatch):
    model, work = loop
    monkeypatch.setattr("keyorbit.detection.marking.fit_marks", lambda *_, **__: 1 / 0)
    work.place(0, "keypoint_01", 0, on_object(work.seen(work.state.current)))
    model.start(work)
    work.accept(1)
    until = time.monotonic() + 60
    while not model.trouble and time.monotonic() < until:
        time.sleep(0.02)
    assert "could not be refitted (ZeroDivisionError)" in model.trouble
    assert model.version == 0
    work.undo(2)
    work.undo(3)
    work.skip(4)  # without marks the run's tokens do
    quiet(model)
    assert (model.version, model.trouble) == (1, "")


def test_the_archive_has_the_tokens(loop, tmp_path):
    model, work = loop
    work.accept(0)
    (tmp_path / "new").mkdir()
    made = archived(work, model, tmp_path / "new")
    shutil.unpack_archive(made, tmp_path / "unpacked")
    assert len(Tokens.load(tmp_path / "unpacked" / "annotations" / "tokens.safetensors")) == 3
    assert len(read_annotations(tmp_path / "marks.json").reviewed) == 1
