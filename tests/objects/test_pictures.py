"""Pictures are taken as every viewer shows them: upright, with 8 bits a channel; data sets and COLMAP as stored."""

import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from helpers.colmap import write_model
from helpers.pictures import DEEP, LEVELS, blocks, close, deep_picture, exif, photograph, stored_for
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.geometry.cameras import Cameras
from keyorbit.geometry.rigs import zero123plus_cameras
from keyorbit.geometry.views import Layout
from keyorbit.objects import dataset, pictures
from keyorbit.objects.captures import load_capture
from keyorbit.objects.dataset import ObjectViews, load_dataset, load_object
from keyorbit.objects.paths import left_out, object_paths, photographs
from keyorbit.objects.pictures import (
    as_shown,
    eight_bits,
    load_image,
    load_mask,
    load_stored,
    on_grey,
    to_tensor,
)

CAMERAS, LAYOUT = zero123plus_cameras(), Layout(3, 2)
ORIENTATIONS = range(1, 9)
SUFFIXES = ("jpg", "png", "webp", "tif")


@pytest.fixture
def tokens(backend):
    return untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_picture_is_upright_by_every_door(orientation, suffix, tmp_path):
    path, pixels = photograph(tmp_path / f"a.{suffix}", orientation), blocks()
    (alone,), (inside,) = load_dataset(path), load_dataset(tmp_path)
    with Image.open(path) as file:
        handed = ObjectViews("a", file)
        grey = on_grey(file)
    with Image.open(path) as file:
        tensor, _ = to_tensor(file)
    images = [load_image(path), alone.input_image, inside.input_image, handed.input_image, grey]
    images += [(tensor.permute(1, 2, 0) * 255).round().numpy()]
    assert [close(image, pixels) for image in images] == [True] * 6
    # Nobody can turn it again, not even who saves it and reads it back.
    assert [image.getexif().get(274, 1) for image in images[:5]] == [1] * 5
    assert close(ObjectViews("a", alone.input_image).input_image, pixels)
    alone.input_image.save(tmp_path / "again.png")
    assert close(load_image(tmp_path / "again.png"), pixels)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_stored_pixels_stay_where_they_are(orientation, suffix, tmp_path):
    stored = load_stored(photograph(tmp_path / f"a.{suffix}", orientation))
    assert close(stored, stored_for(blocks(), orientation))
    # Whoever is handed them later does not turn them either.
    assert close(ObjectViews("a", stored).input_image, stored_for(blocks(), orientation))


def test_the_command_line_detects_on_upright_pictures(model_folder, tokens, tmp_path, run_here, monkeypatch):
    # Steps of the sampler would take a second a picture.
    monkeypatch.setattr(Zero123PlusBackend, "generate", lambda *_: torch.full((1, 3, 48, 32), 0.5))
    run, folder = tmp_path / "run", tmp_path / "pictures"
    run.mkdir()
    folder.mkdir()
    tokens.save(run / "tokens.safetensors")
    # Every orientation of every kind of file is read above: here are enough to see that the command reads as there.
    stored = {"jpg": (1, 3, 6), "png": (8,), "webp": (5,)}
    for suffix, orientations in stored.items():
        for orientation in orientations:
            photograph(folder / f"{suffix}_{orientation}.{suffix}", orientation)
    options = ["--model", model_folder, "--noises", 1, "--format", "json,coco", "--background", "keep"]
    run_here(["detect", run, folder, "--out", tmp_path / "out", *options])
    for suffix, orientations in stored.items():
        found = [tmp_path / "out" / f"{suffix}_{orientation}" for orientation in orientations]
        for folder in found:
            # The middle square of the 40 × 24 pixels that one sees.
            assert close(Image.open(folder / "input.png"), blocks()[:, 8:32])
            shown = json.loads((folder / "coco.json").read_text())["images"][0]
            assert (shown["file_name"], shown["width"], shown["height"]) == ("input.png", 24, 24)
        places = [json.loads((folder / "keypoints.json").read_text())["input"]["xy"] for folder in found]
        assert np.abs(np.array(places) - places[0]).max() < 0.02


@pytest.mark.parametrize("words", ['tiff:Orientation="8"', "<tiff:Orientation>8</tiff:Orientation>"])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_orientation_may_stand_in_xmp(suffix, words, tmp_path):
    image = Image.fromarray(np.ascontiguousarray(stored_for(blocks(), 8)))
    path, text = tmp_path / f"a.{suffix}", f"<x:xmpmeta {words}></x:xmpmeta>"
    if suffix == "png":
        told = PngImagePlugin.PngInfo()
        told.add_itxt("XML:com.adobe.xmp", text)
        image.save(path, pnginfo=told)
    else:
        image.save(path, lossless=True, xmp=text.encode())
    assert close(load_image(path), blocks())
    assert close(ObjectViews("a", load_image(path)).input_image, blocks())
    assert close(load_stored(path), stored_for(blocks(), 8))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    "tags",
    [b"", b"nonsense", b"MM\x00\x2a\x00\x00\xff\xff", exif(6).tobytes()[6:-9], exif(0).tobytes()[6:], b"\xff" * 40],
    ids=["empty", "text", "far", "cut", "0", "ones"],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_a_picture_as_it_is(suffix, tags, tmp_path):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(blocks()).save(
        path, exif=b"Exif\x00\x00" + tags, **({"lossless": True} if suffix == "webp" else {})
    )
    assert load_image(path).size == (40, 24)
    with Image.open(path) as file:
        assert ObjectViews("a", file).input_image.size == (40, 24)


@pytest.mark.parametrize("turned", [1, 6])
def test_sixteen_bits_of_grey_are_eight(turned, tmp_path):
    deep = deep_picture()
    for name in ("a.png", "a.tif"):
        stored = Image.fromarray(np.ascontiguousarray(stored_for(np.asarray(deep), turned)))
        stored.save(tmp_path / name, exif=exif(turned))
        found = load_image(tmp_path / name)
        assert (found.mode, found.size) == ("L", (9, 8))
        assert np.asarray(found)[0].tolist() == list(LEVELS)
    pixels = np.asarray(deep)
    (tmp_path / "a.pgm").write_bytes(b"P5 9 8 65535\n" + pixels.astype(">u2").tobytes())
    assert np.asarray(load_image(tmp_path / "a.pgm"))[0].tolist() == list(LEVELS)
    # TIFF's WhiteIsZero.
    Image.fromarray(65535 - pixels).save(tmp_path / "b.tif", tiffinfo={262: 0})
    assert np.asarray(load_image(tmp_path / "b.tif"))[0].tolist() == list(LEVELS)
    for mode, kind in (("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2")):
        image = Image.frombytes(mode, (9, 8), pixels.astype(kind).tobytes())
        assert np.asarray(eight_bits(image))[0].tolist() == list(LEVELS)
        assert (to_tensor(image)[0] * 255).round()[:, 0].tolist() == [list(LEVELS)] * 3
        assert np.asarray(on_grey(image))[0, :, 0].tolist() == list(LEVELS)
        assert np.asarray(ObjectViews("a", image).input_image)[0].tolist() == list(LEVELS)
    # As Pillow 10.0 opens a 16-bit PNG.
    older = Image.fromarray(pixels.astype(np.int32))
    older.format = "PNG"
    assert np.asarray(as_shown(older))[0].tolist() == list(LEVELS)


def test_a_transparent_grey_of_sixteen_bits_is_a_silhouette(tmp_path):
    deep_picture().save(tmp_path / "a.png", transparency=386)
    found = load_image(tmp_path / "a.png")
    assert found.mode == "LA"
    assert np.asarray(found)[0, :, 0].tolist() == list(LEVELS)
    mask = to_tensor(found)[1]
    # 385 and 386 are one level apart in 16 bits; the others of that grey stay.
    assert mask[0].tolist() == [value != 386 for value in DEEP]
    assert mask[1:].all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_without_a_range_are_refused_in_one_sentence(kind, tmp_path):
    image = Image.fromarray(np.full((9, 9), 700, kind))
    image.save(tmp_path / "a.tif")
    words = f"mode {image.mode}, whose range is not known: scale them to 0…255"
    with pytest.raises(InputError, match=rf"a\.tif has values of {words}"):
        load_dataset(tmp_path / "a.tif")
    for door in (to_tensor, on_grey, as_shown, lambda given: ObjectViews("a", given)):
        with pytest.raises(InputError, match=words):
            door(image)


def test_every_kind_of_picture_gives_its_colours(tmp_path):
    """What modes and files Pillow has beside RGB: none is turned, clipped or taken for transparent by mistake."""
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    kinds = {mode: red.convert(mode) for mode in ("CMYK", "YCbCr", "HSV", "P", "RGBX")}
    kinds["RGBa"] = Image.new("RGBA", (8, 8), (255, 0, 0, 128)).convert("RGBa")
    for mode, image in kinds.items():
        picture, mask = to_tensor(image)
        expected = torch.tensor([255.0, 0, 0]) / 255
        if mode == "RGBa":
            expected, mask = expected * 128 / 255 + 127 / 255 * 127 / 255, None if mask.all() else "not whole"
        assert mask is None, mode
        assert (picture[:, 0, 0] - expected).abs().max() < 0.02, mode
    assert to_tensor(Image.new("LAB", (8, 8)))[1] is None
    # A premultiplied grey, which Pillow converts to nothing but its own kind.
    assert to_tensor(Image.new("LA", (8, 8), (200, 0)).convert("La"))[1].eq(False).all()
    assert to_tensor(Image.new("1", (8, 8), 1))[0].eq(1).all()
    # A palette keeps its colours, its transparent entry and its orientation's place.
    table = Image.fromarray(np.ascontiguousarray(stored_for(blocks(), 6))).quantize(16)
    table.save(tmp_path / "a.png", exif=exif(6), transparency=0)
    found = load_image(tmp_path / "a.png")
    picture, mask = to_tensor(found)
    assert found.size == (40, 24)
    assert 0 < mask.sum() < mask.numel()
    assert (picture * 255 - torch.tensor(blocks()).permute(2, 0, 1))[:, mask].abs().max() < 1


@pytest.mark.parametrize(("suffix", "format"), [("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG"), ("jpg", "MPO")])
def test_of_several_frames_the_first_is_the_picture(suffix, format, tmp_path):
    frames = [Image.new("RGB", (40, 24), color) for color in ("red", "blue")]
    told = {} if format == "GIF" else {"exif": exif(6)}
    frames[0].save(tmp_path / f"a.{suffix}", format, save_all=True, append_images=frames[1:], **told)
    (found,) = load_dataset(tmp_path / f"a.{suffix}")
    assert found.input_image.size == ((24, 40) if told else (40, 24))
    red, _, blue = on_grey(found.input_image).getpixel((5, 5))
    assert red > 240 > 20 > blue


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.apng", "a.tif"])
def test_of_further_frames_one_is_told(name, tmp_path, caplog):
    frames = [Image.new("RGB", (40, 24), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / name, {"a.apng": "PNG"}.get(name), save_all=True, append_images=frames[1:])
    list(load_dataset(tmp_path / name))
    assert caplog.messages == [f"{tmp_path / name} has several frames: the first one is read"]
    frames[0].save(tmp_path / "one.png")
    frames[0].save(tmp_path / "camera.jpg", "MPO", save_all=True, append_images=frames[1:])
    for other in ("one.png", "camera.jpg"):
        load_image(tmp_path / other)
    assert len(caplog.messages) == 1


def test_a_heic_file_is_named_with_the_remedy(tmp_path):
    path = tmp_path / "IMG_1.HEIC"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(99))
    with pytest.raises(InputError, match="it is a HEIC picture; save it as JPEG or PNG"):
        load_dataset(path)
    with pytest.raises(
        InputError, match=r"no pictures \(\.png, \.jpg.*1 of a kind that is not read here \(IMG_1\.HEIC\)"
    ):
        load_dataset(tmp_path)
    # What telephones hand on keeps its name, whatever is in it.
    path.rename(tmp_path / "a.jpg")
    with pytest.raises(InputError, match="it is a HEIC picture; save it as JPEG or PNG"):
        load_dataset(tmp_path / "a.jpg")
    Image.fromarray(blocks()).save(path, "PNG")
    (tmp_path / "a.jpg").unlink()
    assert [close(found.input_image, blocks()) for found in load_dataset(tmp_path)] == [True]


def test_what_is_left_out_of_a_folder_is_counted_in_one_line(tmp_path, caplog):
    image = Image.fromarray(blocks())
    for name in ("b.PNG", "c.gif", "d.jfif", "e.avif", "f .png "):
        image.save(tmp_path / name, {"f .png ": "PNG", "d.jfif": "JPEG"}.get(name))
    for name in ("._a.png", ".x.png", "notes.txt", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    assert left_out(tmp_path) == "skipped 4 files: 2 hidden, 1 empty, 1 not a file"
    # A raw file is a TIFF whose first page is a thumbnail.
    image.save(tmp_path / "p.dng", "TIFF")
    for name in ("q.cr2", "r.svg", "s.pdf"):
        (tmp_path / name).write_text("?", encoding="utf-8")
    assert [thing.name for thing in load_dataset(tmp_path)] == ["b", "c", "d", "e", "f "]
    words = "4 of a kind that is not read here (p.dng, q.cr2, r.svg and more): save as PNG or JPEG"
    assert caplog.messages == [f"{tmp_path}: skipped 8 files: 2 hidden, 1 empty, 1 not a file, {words}"]
    with pytest.raises(InputError, match=r"it is a \.dng file; save it as JPEG or PNG"):
        load_dataset(tmp_path / "p.dng")
    assert left_out(tmp_path / "b.PNG") == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 9\n",
            "a pointer of Git LFS, not the file itself: run .*git lfs pull",
        ),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>", "a web page, not the file itself: download it anew"),
        (b"<svg xmlns='a'>", "text such as a web page or an SVG; save the picture itself"),
        (b"%PDF-1.7", "of no kind that is known here; save it as JPEG or PNG"),
    ],
)
def test_what_was_downloaded_in_the_place_of_a_picture_is_told(content, words, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.jpg cannot be read as a picture: it is {words}"):
        load_image(tmp_path / "a.jpg")


def test_pictures_one_folder_below_are_told(tmp_path):
    for name in (".git", "__MACOSX", "train"):
        (tmp_path / name).mkdir()
    (tmp_path / "__MACOSX" / "._a.png").write_bytes(b"x")
    for name in (".git", "train"):
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    with pytest.raises(InputError, match=rf"; there are pictures in {tmp_path / 'train'}: give that folder$"):
        object_paths(tmp_path)


def test_a_hidden_folder_is_no_object(tmp_path):
    for name in ("a", ".ipynb_checkpoints"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meta.json").touch()
    assert object_paths(tmp_path) == [tmp_path / "a"]


def test_object_folders_are_read_upright_and_in_eight_bits(tmp_path):
    (tmp_path / "meta.json").write_text(json.dumps({"format": "keyorbit-object-1", "layout": [3, 2]}))
    photograph(tmp_path / "cond.png", 6)
    for i in range(6):
        deep_picture().save(tmp_path / f"view_{i}.png")
    found = load_object(tmp_path)
    assert close(found.input_image, blocks())
    assert (found.views * 255).round()[:, 0, 0].tolist() == [list(LEVELS)] * 6
    grid = np.tile(np.asarray(deep_picture()), (3, 2))
    Image.fromarray(np.ascontiguousarray(stored_for(grid, 8))).save(tmp_path / "grid.png", exif=exif(8))
    found = load_object(tmp_path)
    assert found.views.shape == (6, 3, 8, 9)
    assert (found.views * 255).round()[:, 0, 0].tolist() == [list(LEVELS)] * 6
    deep_picture().save(tmp_path / "cond.png")
    assert np.asarray(load_object(tmp_path).input_image)[0].tolist() == list(LEVELS)


def laid_on(width, height):
    """The model's cameras for pictures of these sides, whose middle square is a view of theirs."""
    inner = CAMERAS.intrinsics.clone()
    inner[:, 0, 0] *= min(width, height) / width
    inner[:, 1, 1] *= min(width, height) / height
    return Cameras(CAMERAS.world_to_camera, inner)


@pytest.mark.parametrize("turned", [1, 3, 6])
def test_photographs_with_cameras_are_upright_but_colmaps_as_stored(turned, tmp_path):
    folder, given = tmp_path / "photographs", photograph(tmp_path / "given.jpg", 6)
    folder.mkdir()
    for i in range(6):
        photograph(folder / f"view_{i}.png", turned)
    height, width = blocks().shape[:2]
    (tmp_path / "cameras.json").write_text(json.dumps(laid_on(width, height).to_dict()))
    height, width = stored_for(blocks(), turned).shape[:2]
    names = [f"view_{i}.png" for i in range(6)]
    write_model(tmp_path / "model", laid_on(width, height), width, height, names)

    def expected(pixels):
        top, left = ((side - 24) // 2 for side in pixels.shape[:2])
        return pixels[top : top + 24, left : left + 24]

    for cameras, pixels in (("cameras.json", blocks()), ("model", stored_for(blocks(), turned))):
        found = load_capture(folder, tmp_path / cameras, LAYOUT, 24)
        shown = (found.views.permute(0, 2, 3, 1) * 255).round().numpy()
        assert all(close(view, expected(pixels)) for view in shown)
        assert close(found.input_image, pixels)
        # The middle square of either is what the model's own cameras see.
        torch.testing.assert_close(found.cameras.intrinsics, CAMERAS.intrinsics, rtol=1e-4, atol=1e-4)
        # An input picture of its own is the user's, whatever counted the views.
        assert close(load_capture(folder, tmp_path / cameras, LAYOUT, 24, given).input_image, blocks())


def test_photographs_of_sixteen_bits_are_not_white(tmp_path):
    for i in range(6):
        Image.fromarray(np.full((24, 24), 32768, np.uint16)).save(tmp_path / f"view_{i}.png")
    (tmp_path / "cameras.json").write_text(json.dumps(CAMERAS.to_dict()))
    found = load_capture(tmp_path, tmp_path / "cameras.json", LAYOUT, 16)
    assert (found.views * 255).round().unique().tolist() == [128]


def test_labels_and_emptiness_of_deep_masks(tmp_path):
    Image.fromarray(np.array([[0, 1, 2, 4]], np.uint16).repeat(8, 0).repeat(2, 1)).save(tmp_path / "labels.png")
    assert np.asarray(load_mask(tmp_path / "labels.png"))[0, ::2].tolist() == [0, 64, 128, 255]
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "nothing.png")
    assert load_mask(tmp_path / "nothing.png").getextrema() == (0, 0)


def gradient(width, height, bands):
    """A smooth picture, of which every reduction is known."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * 255 / width), (y * 255 / height), ((x + y) * 255 / (width + height)), 55 + x * 200 / width]
    return np.stack(planes[:bands], -1).round().astype(np.uint8).squeeze()


KINDS = {
    "jpg": lambda: Image.fromarray(gradient(1500, 1203, 3)),
    "png": lambda: Image.fromarray(gradient(1500, 1203, 3)),
    "grey.png": lambda: Image.fromarray(gradient(1500, 1203, 1)),
    "deep.png": lambda: Image.fromarray(gradient(1500, 1203, 1).astype(np.uint16) * 257),
    "alpha.png": lambda: Image.fromarray(gradient(1500, 1203, 4)),
    "table.png": lambda: Image.fromarray(gradient(1500, 1203, 3)).quantize(256),
    "tif": lambda: Image.fromarray(gradient(1500, 1203, 3)),
    "webp": lambda: Image.fromarray(gradient(1500, 1203, 3)),
}


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_too_large_is_read_smaller_and_looks_the_same(kind, orientation, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_SHORTER", 64)
    monkeypatch.setattr(pictures, "_STRIP", 50_000)
    path = tmp_path / f"a.{kind}"
    KINDS[kind]().save(path, exif=exif(orientation))
    whole = load_image(path)
    assert whole.size == ((1500, 1203) if orientation == 1 else (1203, 1500))
    found = load_image(path, 1_000_000)
    width, height = found.size
    assert 249_000 < width * height < 251_000
    assert abs(width / height * whole.height / whole.width - 1) < 0.002
    expected, mask = to_tensor(whole)
    shown, found_mask = to_tensor(found)
    expected = torch.nn.functional.interpolate(expected[None], (height, width), mode="area")[0]
    away = 255 * (shown - expected).abs()
    assert away.mean() < 0.6
    # At the borders of a palette's colours, and of the blocks of JPEG, a box of other pixels gives another mean.
    assert away.max() < {"table.png": 17, "jpg": 9}.get(kind, 2.5)
    assert (mask is None) == (found_mask is None)
    assert load_image(path, 1500 * 1203).tobytes() == whole.tobytes()


def test_strips_join_without_a_seam(monkeypatch):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (301, 211, 3), np.uint8))
    whole = pictures.reduced(image, (50, 71))
    monkeypatch.setattr(pictures, "_STRIP", 211 * 17)
    assert np.abs(np.asarray(whole).astype(int) - np.asarray(pictures.reduced(image, (50, 71)))).max() <= 1
    assert np.abs(np.asarray(whole).astype(int) - np.asarray(image.resize((50, 71), Image.Resampling.BOX))).max() <= 1


@pytest.mark.parametrize(
    ("size", "largest", "expected"),
    [
        ((8192, 8192), 2**26, None),
        ((13_000, 13_000), 2**26, (4096, 4096)),
        ((13_000, 13_000), None, None),
        ((100_000, 1000), 2**26, None),
        ((50_000, 2048), 2**26, (25_000, 1024)),
    ],
)
def test_the_size_at_which_a_picture_is_read(size, largest, expected):
    assert pictures.reduced_size(size, largest) == expected


def test_views_of_a_grid_too_large_are_reduced_each_by_itself(tmp_path, monkeypatch):
    (tmp_path / "meta.json").write_text(json.dumps({"format": "keyorbit-object-1", "layout": [3, 2]}))
    Image.new("RGB", (8, 8)).save(tmp_path / "cond.png")
    grid = np.zeros((3 * 101, 2 * 101, 4), np.uint8)
    for i in range(6):
        grid[i // 2 * 101 :, i % 2 * 101 :] = (40 * i, 0, 0, 255 * (i % 2))
    Image.fromarray(grid).save(tmp_path / "grid.png")
    whole = load_object(tmp_path)
    monkeypatch.setattr(pictures, "_SHORTER", 8)
    monkeypatch.setattr(dataset, "LARGEST", 40_000)
    found = load_object(tmp_path)
    assert found.views.shape == (6, 3, 40, 41)
    # No view has anything of its neighbours.
    torch.testing.assert_close(found.views.amax((2, 3)), whole.views.amax((2, 3)))
    torch.testing.assert_close(found.views.amin((2, 3)), whole.views.amin((2, 3)))
    assert found.masks.flatten(1).all(1).tolist() == [False, True] * 3


def declared(width, height):
    """A PNG that says how large it is, and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (
            (100_000, 100_000),
            r"too large a picture: Image size \(10000000000 pixels\) exceeds limit of 178956970 pixels;",
        ),
        ((0, 9), "cannot be read as a picture"),
    ],
)
def test_a_size_that_cannot_be_used_is_told(size, words, tmp_path):
    (tmp_path / "a.png").write_bytes(declared(*size))
    with pytest.raises(InputError, match=words):
        load_image(tmp_path / "a.png")


def test_a_picture_that_is_a_line_is_told(tmp_path):
    Image.new("RGB", (9, 1800)).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png").size == (9, 1800)
    Image.new("RGB", (9, 1801)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is 9x1801 pixels; a picture is at most 200 times as long as wide: cut it"):
        load_image(tmp_path / "a.png")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "c.png").mkdir()
    (tmp_path / "._a.png").write_bytes(b"\0\5\26\7")
    assert [thing.name for thing in load_dataset(tmp_path)] == ["a"]
    assert [path.name for path in photographs(tmp_path)] == ["a.png"]
    for name in ("b.png", "c.png"):
        with pytest.raises(InputError, match="there is no picture at"):
            load_image(tmp_path / name)
    with pytest.raises(InputError, match="there is no file or folder"):
        load_dataset(tmp_path / "b.png")


def test_photographs_are_in_a_folder_or_else_below_it_and_links_lead_nowhere(tmp_path):
    names = ("cam1/b.png", "cam0/a.png", "cam0/.hidden/c.png", "deep/er/est/d.png", "too/deep/for/us/e.png")
    for name in (*names, "cam1/below/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"not read here")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "round").symlink_to(tmp_path / "empty")
    found = [path.relative_to(tmp_path).as_posix() for path in photographs(tmp_path)]
    assert found == ["cam0/a.png", "cam1/b.png", "deep/er/est/d.png"]
    (tmp_path / "g.png").write_bytes(b"not read here")
    assert [path.name for path in photographs(tmp_path)] == ["g.png"]
