"""Wrong descriptions, cameras, COLMAP models, pictures and names: one sentence, or what was asked for."""

import csv
import json
import random
import shutil
import warnings
from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.colmap import write_binary, write_model
from helpers.hostile import WRONG, answer, hostile
from helpers.wrong_cameras import RIG
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.geometry.views import Layout
from keyorbit.objects.captures import load_capture
from keyorbit.objects.colmap import read_colmap
from keyorbit.objects.dataset import load_object, stack_truths
from keyorbit.objects.pictures import load_image, load_mask, load_stored, on_grey, to_tensor

REMOVED, LAYOUT = "removed", Layout(3, 2)
NAMES = [f"{i}.png" for i in range(6)]
anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def places(value, at=()):
    """Where something stands in plain values: of a list the first, the second and the last."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if isinstance(value, dict) or name in (0, 1, len(value) - 1):
            yield from places(item, (*at, name))


def changed(value, at, new):
    """The values with another one in one place."""
    value = deepcopy(value)
    if not at:
        return new
    inner = value
    for name in at[:-1]:
        inner = inner[name]
    if new is REMOVED:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return value


def outcome(read, *given):
    """Whether reading gives one sentence or is accepted; everything else is an error of the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            read(*given)
        except InputError as error:
            said = str(error)
        else:
            return "accepted"
    assert 0 < len(said) < 600
    return "one sentence"


META = {
    "format": "keyorbit-object-1",
    "layout": [3, 2],
    "cameras": RIG.to_dict(),
    "caption": "a chair",
    "input_elevation_deg": 12.5,
    "keypoint_names": ["left", "right", "top"],
    "pairs": [[0, 1]],
    "keypoints_3d": [[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.0, 0.2]],
    "known": [True, True, False],
    "keypoints_2d": [[[0.5, 0.5]] * 3] * 7,
    "visible": [[True, False, True]] * 7,
    "boxes": [[0.5, 0.5]] * 7,
    "surface": [[0.1, 0.2, 0.3]] * 4,
    "symmetry": 2,
    "mine": {"what": "others add"},
}
CAMERAS = {"cameras": RIG.to_dict()}


@pytest.fixture(scope="module")
def thing(tmp_path_factory):
    """An object folder."""
    folder = tmp_path_factory.mktemp("objects") / "thing"
    folder.mkdir()
    Image.new("RGB", (16, 16)).save(folder / "cond.png")
    Image.new("RGBA", (16, 24), "red").save(folder / "grid.png")
    (folder / "meta.json").write_text(json.dumps(META))
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i, name in enumerate(NAMES):
        Image.fromarray(np.full((24, 24, 3), 40 * i, np.uint8)).save(folder / name)
    return folder


def read_meta(folder, content):
    (folder / "meta.json").write_text(json.dumps(content))
    return load_object(folder)


def read_cameras(folder, photographs, content):
    (folder / "cameras.json").write_text(json.dumps(content))
    return load_capture(photographs, folder / "cameras.json", LAYOUT, 16)


def few(pairs, chaos, count):
    """All of them, or some that are the same each time."""
    pairs = list(pairs)
    return pairs if chaos else random.Random(0).sample(pairs, count)


def test_every_place_in_a_description(thing, chaos, tally):
    for at, new in few(product(places(META), (*WRONG, REMOVED)), chaos, 400):
        if at or new is not REMOVED:
            tally["objects", "meta.json: one value", outcome(read_meta, thing, changed(META, at, new))] += 1


@anything
@given(data=st.data())
def test_descriptions_of_any_values(data, thing, tally):
    names = data.draw(st.lists(st.sampled_from(sorted(META)), min_size=1, max_size=4))
    content = META | {name: data.draw(hostile()) for name in names}
    tally["objects", "meta.json: several values", outcome(read_meta, thing, content)] += 1


def test_a_description_is_whole_and_names_may_be_added(thing):
    found = read_meta(thing, META | {"known": [1, 1.0, 0], "keypoint_names": ["a\nb", 7, "\ud800"]})
    assert found.truth.known.tolist() == [True, True, False]
    assert found.truth.names == ("a b", "7", "?")
    assert found.truth.surface.shape == (4, 3)
    assert read_meta(thing, {"format": META["format"], "layout": [3, 2]}).truth is None
    # Views that nobody annotated may be left out.
    one = {name: META[name][:1] for name in ("keypoints_2d", "visible", "boxes")}
    assert len(read_meta(thing, META | one).truth.boxes) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pairs": [[0, 3]]}, r"pairs has \[0, 3\]; the 3 landmarks are counted from 0"),
        ({"pairs": [[-1, 0]]}, r"pairs\[0\]\[0\] cannot be -1"),
        ({"known": [True]}, "known has 1 entries for the 3 landmarks in keypoint_names"),
        ({"visible": [[True] * 3] * 6}, "visible has 6 entries for the 7 views in keypoints_2d"),
        ({"visible": [[True] * 3] * 6 + [[True]]}, r"visible\[6\] has 1 entries for the 3 landmarks"),
        ({"keypoints_2d": [[[0.5, 0.5]] * 2] * 7}, r"keypoints_2d\[0\] has 2 entries"),
        ({"keypoints_3d": []}, "keypoints_3d has 0 entries"),
        ({"boxes": [[0.5, 0.5]]}, "boxes has 1 entries for the 7 views"),
        ({"keypoint_names": []}, "not empty, or left out"),
        ({"layout": [0, 2]}, r"layout\[0\] cannot be 0; it must be a whole number >= 1"),
        ({"layout": [2**31 - 1, 2]}, "does not divide"),
        ({"surface": [[0.1, 0.2, 0.3]]}, "surface has fewer than two points"),
        ({"format": "\ud800"}, "which is no text in Unicode"),
    ],
)
def test_what_contradicts_itself_is_named(change, words, thing):
    with pytest.raises(InputError, match=words):
        read_meta(thing, META | change)


def test_objects_with_different_landmarks_are_not_stacked(thing):
    whole = read_meta(thing, META)
    other = read_meta(thing, {name: META[name] for name in ("format", "layout")} | {
        "keypoint_names": ["a"], "known": [1], "keypoints_2d": [[[0, 0]]], "visible": [[1]],
    })  # fmt: skip
    with pytest.raises(InputError, match="thing has 1 landmarks, and others have 3"):
        stack_truths([whole, other])


def test_every_place_in_a_camera_file(photographs, tmp_path, chaos, tally):
    for at, new in few(product(places(CAMERAS), (*WRONG, REMOVED)), chaos, 300):
        if at or new is not REMOVED:
            found = outcome(read_cameras, tmp_path, photographs, changed(CAMERAS, at, new))
            tally["cameras", "JSON: one value", found] += 1


@anything
@given(
    value=st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1e-30, 1e9, -1e9, 1.0]),
    name=st.sampled_from(["world_to_camera", "intrinsics"]),
    what=st.sampled_from(["one", "row", "matrix", "all", "times", "plus"]),
    at=st.tuples(*[st.integers(0, 2)] * 3),
    orthographic=st.booleans(),
)
def test_cameras_of_any_numbers(value, name, what, at, orthographic, photographs, tmp_path, tally):
    cameras = RIG.to_dict() | {"orthographic": orthographic}
    numbers = torch.tensor(cameras[name], dtype=torch.float64)
    i, j, k = at
    if what in ("times", "plus"):
        numbers[:, :3] = numbers[:, :3] * value if what == "times" else numbers[:, :3] + value
    else:
        numbers[{"one": (i, j, k), "row": (i, j), "matrix": i, "all": ...}[what]] = value
    found = outcome(read_cameras, tmp_path, photographs, cameras | {name: numbers.clamp(-1e9, 1e9).tolist()})
    tally["cameras", "JSON: other numbers", found] += 1


def test_files_of_too_many_cameras_are_told(photographs, tmp_path):
    many = {name: values[:1] * 2_000 for name, values in RIG.to_dict().items() if name != "orthographic"}
    with pytest.raises(InputError, match="has 2000 cameras for the 6 photographs"):
        read_cameras(tmp_path, photographs, many)


def damaged(content, chance):
    """A file with some bytes changed, cut out or put in."""
    content = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(content) + 1)
        size = chance.choice([1, 1, 2, 8, 50])
        kind = chance.choice(["change", "cut", "end", "insert", "lie"])
        if kind == "change":
            content[at : at + size] = chance.randbytes(min(size, len(content) - at))
        elif kind == "cut":
            del content[at : at + size]
        elif kind == "end":
            del content[at:]
        elif kind == "insert":
            content[at:at] = chance.choice([chance.randbytes(size), b"9" * size, b"-", b"nan ", b"\n", b"\0"])
        else:
            content[at : at + 8] = chance.choice([b"\xff" * 8, bytes(8), b"\0\0\0\0\0\0\0\x80"])
    return bytes(content)


@anything
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["txt", "bin"]), name=st.sampled_from(["cameras", "images"]))
def test_damaged_models_of_colmap(seed, kind, name, photographs, tmp_path, tally):
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    (write_model if kind == "txt" else write_binary)(folder, RIG, 24, 24, NAMES)
    path = folder / f"{name}.{kind}"
    path.write_bytes(damaged(path.read_bytes(), random.Random(seed)))
    tally["cameras", f"COLMAP's {name}.{kind}, damaged", outcome(read_colmap, folder)] += 1
    outcome(load_capture, photographs, folder, LAYOUT, 16)


@anything
@given(data=st.data())
def test_rows_of_colmap_of_any_words(data, photographs, tmp_path, tally):
    folder = tmp_path / "model"
    write_model(folder, RIG, 24, 24, NAMES)
    path = folder / data.draw(st.sampled_from(["cameras.txt", "images.txt"]))
    rows = path.read_text().split("\n")
    words = rows[0].split()
    at = data.draw(st.integers(0, len(words)))
    value = data.draw(st.sampled_from(WRONG).map(str) | st.text(max_size=20) | st.floats().map(repr))
    rows[0] = " ".join([*words[:at], value, *words[at + data.draw(st.integers(0, 3)) :]])
    path.write_text("\n".join(rows), encoding="utf-8", errors="replace")
    found = outcome(load_capture, photographs, folder, LAYOUT, 16)
    tally["cameras", f"COLMAP's {path.name}, other words", found] += 1


KINDS = ("png", "jpg", "webp", "bmp", "tif", "gif", "ppm")


def read_picture(path):
    image = load_image(path)
    on_grey(image)
    to_tensor(image)
    load_stored(path)
    load_mask(path)


@anything
@given(
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(KINDS),
    mode=st.sampled_from(["RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "I;16"]),
)
def test_damaged_pictures(seed, kind, mode, tmp_path, tally):
    chance = random.Random(seed)
    image = Image.frombytes("RGB", (32, 24), chance.randbytes(32 * 24 * 3))
    image = Image.new("I;16", (32, 24), 700) if mode == "I;16" else image.convert(mode)
    path = tmp_path / f"a.{kind}"
    try:
        image.save(path, **({"transparency": bytes([0, 128])} if mode == "P" and kind == "png" else {}))
    except (OSError, ValueError, KeyError):  # this kind of file has no such mode
        image.convert("RGB").save(path)
    path.write_bytes(damaged(path.read_bytes(), chance))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        tally["objects", f"pictures ({kind}), damaged", outcome(read_picture, path)] += 1


NAMES_ODD = (
    *(
        "=1+1",
        "+<script>alert(1)<[red]x[",
        "@a'b\"c&d{{7*7}}",
        "\t=a\nb\x1b[31mred\udcff",
        "-1",
        "＝1",
        "[",
        "nul",
        "x" * 250,
    ),
    *("..x", "a.", "  ", "<script>alert(1)<", "\u202e"),
)


@pytest.fixture(scope="module")
def run(model_folder, tmp_path_factory):
    """Untrained tokens of a model with random weights."""
    from keyorbit.diffusion.backends.loading import load_backend

    folder = tmp_path_factory.mktemp("run")
    untrained(load_backend(model_folder), DiscoverConfig(num_tokens=3, num_candidates=3)).save(
        folder / "tokens.safetensors"
    )
    return folder


def test_names_stay_in_their_place(run, model_folder, thing, tmp_path, chaos, tally):
    data, names = tmp_path / "data", NAMES_ODD if chaos else NAMES_ODD[1:4:2]
    for name in names:
        shutil.copytree(thing, data / name)
        content = META | {"keypoint_names": [name, "</script><script>", "b"], "caption": name}
        (data / name / "meta.json").write_text(json.dumps(content))
    out, page = tmp_path / "in" / "out", tmp_path / "report.html"
    with_model = ("--model", model_folder, "--device", "cpu")
    said = answer("detect", run, data, "--out", out, "--format", "json,coco,csv,glb,ply,colmap", *with_model)
    assert said.status == 0, said.escaped or said.said
    assert {path.name for path in tmp_path.iterdir()} == {"data", "in"}
    assert {path.name for path in (tmp_path / "in").iterdir()} == {"out"}
    found = [path for path in out.iterdir() if path.is_dir()]
    assert len(found) == len(names)
    for folder in found:
        written = json.loads((folder / "keypoints.json").read_text())["object"]
        assert written.isprintable()
        for path in folder.glob("*.csv"):
            with path.open(newline="") as file:
                header, *rows = csv.reader(file)
            assert {len(row) for row in rows} == {len(header)}
            assert not any(row[0].startswith(tuple("=+-@\t\r＝")) for row in rows)
            assert {row[0].lstrip("'") for row in rows} == {written.lstrip("'")}
    if chaos:
        said = answer("evaluate", run, data, "--json", tmp_path / "scores.json", "--no-baseline", *with_model)
        assert said.status == 0, said.escaped or said.said
    said = answer("report", run, data, "--out", page, "--objects", len(found), *with_model)
    assert said.status == 0, said.escaped or said.said
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "</script><script>" not in text
    assert "&lt;script&gt;alert" in text
    assert answer("dataset", "list", data).status == 0
    tally["objects", "names of objects and landmarks, by command", "accepted"] += 4 * len(found)


def test_wrong_objects_and_cameras_by_command(
    run, model_folder, thing, photographs, few_planted, few_denoising_steps, tmp_path, chaos, tally
):
    with_model, data = ("--model", model_folder, "--device", "cpu"), tmp_path / "data"
    shutil.copytree(thing, data / "thing")
    briefly = ("--config", few_planted)
    tried = few(product(places(META), (*WRONG, REMOVED)), False, 40 if chaos else 4)
    for i, (at, new) in enumerate(tried):
        (data / "thing" / "meta.json").write_text(json.dumps(changed(META, at, new) if at else new))
        for words in (
            ("detect", run, data, "--out", tmp_path / "out", *with_model),
            ("evaluate", run, data, "--json", tmp_path / "out", *with_model),
            ("discover", data, "--out", tmp_path / "out", "--steps", 1, "--tokens", 3, *with_model, *briefly),
        )[i % 3 :][: 3 if chaos else 1]:
            said = answer(*words)
            assert said.status == 0 or said.sentence, said.escaped or said.said
            assert said.status == 0 or not (tmp_path / "out").exists()
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
            (tmp_path / "out").unlink(missing_ok=True)
            tally["objects", f"meta.json, by {words[0]}", "one sentence" if said.status else "accepted"] += 1
    for at, new in few(product(places(CAMERAS), (*WRONG, REMOVED)), False, 40 if chaos else 4):
        (tmp_path / "cameras.json").write_text(json.dumps(changed(CAMERAS, at, new) if at else new))
        views = ("--views", photographs, "--cameras", tmp_path / "cameras.json")
        said = answer("detect", run, *views, "--out", tmp_path / "out", *with_model)
        assert said.status == 0 or said.sentence, said.escaped or said.said
        assert said.status == 0 or not (tmp_path / "out").exists()
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        tally["cameras", "JSON, by detect", "one sentence" if said.status else "accepted"] += 1
