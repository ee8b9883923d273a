"""Objects are cut out of photographs, by a mask, a network or their colours, and what cannot be done is told."""

import json
import logging
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.hostile import answer
from keyorbit.app.uploads import Limits, open_mask
from keyorbit.cli.cutouts import write_cut_outs
from keyorbit.cli.work.several import load_all
from keyorbit.diffusion.backends.zero123plus import Zero123PlusBackend
from keyorbit.diffusion.prepare import model_image
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.errors import InputError
from keyorbit.objects import dataset, removers
from keyorbit.objects.cutout import cut_out
from keyorbit.objects.dataset import ObjectViews, load_dataset, load_object
from keyorbit.objects.matte import LARGEST, cut_by, cut_size
from keyorbit.objects.paths import mask_files
from keyorbit.objects.pictures import load_image, on_grey

pytest.importorskip("cv2")
SIZE = 160, 120
YELLOW = 250, 225, 60


def disc(size=SIZE, centre=(0.5, 0.5), radius=0.25):
    """How much of each pixel a disc covers, 0…1, with an edge of a pixel."""
    y, x = np.mgrid[: size[1], : size[0]]
    away = np.hypot(x + 0.5 - centre[0] * size[0], y + 0.5 - centre[1] * size[1])
    return (radius * min(size) - away + 0.5).clip(0, 1)


def leaves(size=SIZE, seed=0):
    """A ground of many greens."""
    noise = np.random.default_rng(seed).integers(-40, 40, (size[1], size[0], 1))
    return np.clip(np.array([60, 120, 40]) + noise, 0, 255)


def photograph(*discs, size=SIZE, ground=None):
    """Yellow discs before leaves."""
    share = np.max(discs or [disc(size)], axis=0)[..., None]
    behind = leaves(size) if ground is None else ground
    return Image.fromarray((share * np.array(YELLOW) + (1 - share) * behind).round().astype(np.uint8))


def overlap(image, share):
    found, true = np.asarray(image.getchannel("A").resize(share.shape[::-1])) > 127, share > 0.5
    return (found & true).sum() / (found | true).sum()


@pytest.fixture(autouse=True)
def without_rembg(monkeypatch):
    """GrabCut alone, whatever is installed."""
    monkeypatch.setitem(sys.modules, "rembg", None)
    removers._rembg.cache_clear()
    yield
    removers._rembg.cache_clear()


@pytest.fixture
def stand_in(monkeypatch):
    """In place of rembg: a network that marks the left half, and notes how it is called."""
    calls = []

    def remove(image, session=None, only_mask=False):
        calls.append((image.mode, session, only_mask))
        mask = np.zeros((image.height, image.width), np.uint8)
        mask[:, : image.width // 2] = 255
        return Image.fromarray(mask)

    def new_session(name):
        calls.append(name)
        return "session"

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(remove=remove, new_session=new_session))
    return calls


def test_an_object_is_found_by_its_colours_the_same_each_time():
    for i, centre in enumerate([(0.5, 0.5), (0.35, 0.4), (0.6, 0.55)]):
        share = disc(centre=centre)
        found = cut_out(photograph(share, ground=leaves(seed=i)))
        assert found.by == "grabcut"
        assert overlap(found.image, share) > 0.95
        assert found.share == pytest.approx(share.mean(), rel=0.05)
        again = cut_out(photograph(share, ground=leaves(seed=i)))
        assert again.image.tobytes() == found.image.tobytes()


def test_the_edge_has_no_colour_of_the_old_background():
    share = disc(radius=0.35)
    picture = photograph(share, ground=np.full((SIZE[1], SIZE[0], 3), (20, 230, 20)))
    true = share[..., None] * np.array(YELLOW) + (1 - share[..., None]) * 127
    ring = (share > 0.05) & (share < 0.95)

    def error(image):
        return np.abs(np.asarray(on_grey(image)) - true)[ring].mean()

    def with_alpha(alpha):
        naive = picture.copy()
        naive.putalpha(Image.fromarray((alpha * 255).round().astype(np.uint8)))
        return naive

    given, found = cut_by(picture, share, soft=False), cut_by(picture, (share > 0.5).astype(float), soft=True)
    assert error(given) < 1.5
    assert error(with_alpha(share)) > 10
    assert error(found) < 0.7 * error(with_alpha(share > 0.5))
    # Within, the pixels are the picture's own.
    assert (np.asarray(given)[share > 0.995][:, :3] == np.asarray(picture)[share > 0.995]).all()


def test_a_large_picture_is_reduced_and_a_mask_of_either_size_fits():
    assert cut_size((100, 50)) == (100, 50)
    assert cut_size((4 * LARGEST, LARGEST)) == (LARGEST, LARGEST // 4)
    big = Image.new("RGB", (LARGEST + 600, 40), YELLOW)
    assert cut_by(big, np.pad(np.ones((4, 4)), 2), soft=False).size == cut_size(big.size)
    for size in (big.size, cut_size(big.size)):
        assert ObjectViews("a", big, mask=Image.new("L", size, 255)).mask.size == size
    with pytest.raises(InputError, match="the mask of a is 9x9 pixels, and its picture 2648x40 when upright"):
        ObjectViews("a", big, mask=Image.new("L", (9, 9)))


def variants():
    """The same photograph as files of other kinds have it."""
    rgb = photograph()
    grey = np.asarray(rgb.convert("L")).astype(np.uint16) * 257
    with_alpha = rgb.convert("RGBA")
    yield "rgb.png", rgb, {}
    yield "palette.png", rgb.quantize(256), {}
    yield "cmyk.jpg", rgb.convert("CMYK"), {"quality": 95}
    yield "opaque_alpha.png", with_alpha, {}
    corners = with_alpha.copy()
    corners.putalpha(Image.fromarray((disc(radius=0.8) > 0).astype(np.uint8) * 255))
    yield "round_corners.png", corners, {}
    yield "grey16.png", Image.fromarray(grey), {}
    exif = Image.Exif()
    exif[274] = 6
    yield "turned.jpg", rgb.transpose(Image.Transpose.ROTATE_90), {"exif": exif, "quality": 95}


@pytest.mark.parametrize(("name", "image", "options"), list(variants()), ids=[name for name, *_ in variants()])
def test_every_kind_of_picture_is_cut_out_and_brought_to_the_middle(name, image, options, tmp_path):
    image.save(tmp_path / name, **options)
    share = disc(centre=(0.5, 0.5))
    thing = load_dataset(tmp_path / name)[0]
    assert thing.input_image.size == SIZE
    assert overlap(thing.shown_image(), share) > 0.93
    assert thing.framing.cut_out_by == "grabcut"
    assert thing.framing.recentred
    alpha = np.asarray(thing.framed_image.getchannel("A")) > 127
    rows, columns = alpha.nonzero()
    assert max(np.ptp(rows), np.ptp(columns)) / alpha.shape[0] == pytest.approx(0.85, abs=0.03)
    assert abs(rows.min() + rows.max() - alpha.shape[0]) <= 4
    if name not in ("grey16.png", "cmyk.jpg"):
        middle = np.asarray(thing.framed_image)[alpha.shape[0] // 2, alpha.shape[1] // 2]
        assert np.abs(middle.astype(int) - [*YELLOW, 255]).max() < 12


def test_the_noise_of_a_jpeg_on_a_plain_ground_is_nothing_to_remove(tmp_path):
    """Where an object of 64 pixels ends is hidden by it, so the object's box is not known; its ground is plain."""
    example = Path(str(files("keyorbit"))) / "assets" / "examples" / "chair_2_00000" / "cond.png"
    for quality in (50, 75, 95):
        Image.open(example).convert("RGB").save(tmp_path / "a.jpg", quality=quality)
        assert load_dataset(tmp_path / "a.jpg")[0].cut_out is None


def test_what_is_known_is_kept_and_what_is_asked_for_is_done(objects, stable_diffusion, backend):
    transparent, plain = photograph().convert("RGBA"), photograph(ground=np.full((SIZE[1], SIZE[0], 3), 255))
    transparent.putalpha(Image.fromarray((disc() * 255).astype(np.uint8)))
    done = {
        (background, name): ObjectViews(name, image, background=background).cut_out is not None
        for background in ("auto", "remove", "keep")
        for name, image in (("alpha", transparent), ("plain", plain), ("photograph", photograph()))
    }
    assert {key for key, was in done.items() if was} == {
        ("auto", "photograph"),
        ("remove", "plain"),
        ("remove", "photograph"),
    }
    # What comes with its views or its truth is as it is, unless asked for.
    known = ObjectViews("known", photograph(), objects[0].views)
    assert known.cut_out is None
    assert ObjectViews("known", photograph(), objects[0].views, background="remove").cut_out is not None
    assert ObjectViews("known", photograph(), truth=objects[0].truth).shown_image() is not None
    assert ObjectViews("known", photograph(), truth=objects[0].truth).cut_out is None
    # Models of a single view were trained on photographs.
    thing, asked = ObjectViews("a", photograph()), ObjectViews("a", photograph(), background="remove")
    assert model_image(thing, stable_diffusion) is thing.input_image
    assert model_image(asked, stable_diffusion) is asked.cut_out.image
    assert model_image(thing, backend).mode == "RGBA"


def test_a_mask_wins_over_what_is_looked_for(tmp_path):
    left = disc(centre=(0.3, 0.5), radius=0.2)
    mask = Image.fromarray((left * 255).astype(np.uint8))
    for background in ("auto", "remove", "keep"):
        thing = ObjectViews("a", photograph(), background=background, mask=mask)
        assert thing.framing.cut_out_by == "mask"
        assert (np.asarray(thing.shown_image().getchannel("A")) == np.asarray(mask)).all()
    assert thing.cut_out.words == f"cut out by the mask given: the object is {(left > 0.5).mean():.0%} of the picture"


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return folder / name


def test_a_mask_is_read_by_its_alpha_or_its_brightness_and_upright(tmp_path):
    photograph().save(tmp_path / "a.png")
    share = disc(centre=(0.3, 0.4), radius=0.2) > 0.5
    alpha = photograph().convert("RGBA")
    alpha.putalpha(Image.fromarray(share.astype(np.uint8) * 255))
    exif = Image.Exif()
    exif[274] = 8
    turned = Image.fromarray(share.astype(np.uint8) * 255).transpose(Image.Transpose.ROTATE_270)
    ones = Image.fromarray(share.astype(np.uint8))
    ones.putpalette([0, 0, 0, 128, 0, 0])
    files = [
        saved(tmp_path, "white.png", Image.fromarray(share.astype(np.uint8) * 255)),
        saved(tmp_path, "ones.png", Image.fromarray(share.astype(np.uint8))),
        saved(tmp_path, "bits.png", Image.fromarray(share)),
        saved(tmp_path, "palette.png", ones),
        saved(tmp_path, "deep.png", Image.fromarray(share.astype(np.uint16))),
        saved(tmp_path, "alpha.png", alpha),
        saved(tmp_path, "turned.png", turned, exif=exif),
    ]
    for file in files:
        thing = load_dataset(tmp_path / "a.png", mask=file)[0]
        assert ((np.asarray(thing.mask) > 127) == share).all(), file.name


def test_masks_are_found_by_the_names_of_their_pictures(tmp_path):
    pictures, masks = tmp_path / "pictures", tmp_path / "masks"
    for folder in (pictures, masks / "d"):
        folder.mkdir(parents=True)
    paths = [saved(pictures, name, photograph()) for name in ("a.png", "b.jpg", "c.png", "d.png", "e.png")]
    mask = Image.fromarray((disc() * 255).astype(np.uint8))
    wanted = [saved(masks, "a.png", mask), saved(masks, "b.mask.png", mask), saved(masks, "c.png.tif", mask)]
    wanted.append(saved(masks / "d", "cutout.png", mask))
    assert mask_files(masks, paths) == dict(zip(paths, wanted, strict=False))
    things = load_dataset(pictures, "keep", masks)
    assert [thing.framing.cut_out_by for thing in things] == ["mask"] * 4 + [None]
    # Beside the pictures: a picture is not its own mask.
    beside = saved(pictures, "a.mask.png", mask)
    assert mask_files(pictures, paths) == {paths[0]: beside}
    for twins in ([paths[0], beside], [paths[1], saved(pictures, "b.png", mask)]):
        with pytest.raises(InputError, match="and is one of the pictures too: keep masks in a folder of their own"):
            mask_files(pictures, twins)
    (tmp_path / "none").mkdir()
    for given, words in (
        (tmp_path / "none", "has no mask of these pictures: one of them would be called a.png"),
        (tmp_path / "gone.png", "there is no mask at"),
        (wanted[0], "is one mask for 5 pictures: give a folder of masks with their names"),
    ):
        with pytest.raises(InputError, match=words):
            mask_files(given, paths)


def labels(*values, palette=None):
    """A disc within a ring, as data sets and trimaps have them: their values, and that of the rest."""
    inner, outer = disc(radius=0.25) > 0.5, disc(radius=0.27) > 0.5
    image = Image.fromarray(np.select([inner, outer], values[:2], values[2]).astype(np.uint8))
    if palette:
        image.putpalette(palette + [0] * (765 - len(palette)) + [224, 224, 192])
    return image


WRONG_MASKS = {
    # PASCAL VOC: a class by its colour, and a light seam that counts as no class. Oxford's pets: 1, 2 the ground, 3.
    "voc.png": (labels(1, 255, 0, palette=[0, 0, 0, 128, 0, 0]), "several greys or colours"),
    "pets.png": (labels(1, 3, 2), "several greys or colours"),
    "instances.png": (labels(2, 3, 0), "several greys or colours"),
    "small.png": (Image.new("L", (30, 30), 255), "all of"),
    "other.png": (Image.fromarray((disc((80, 80)) * 255).astype(np.uint8)), "is 80x80 pixels, and .* 160x120"),
    "black.png": (Image.new("L", SIZE), "marks no object in"),
    "clear.png": (Image.new("RGBA", SIZE), "marks no object in"),
    "white.png": (Image.new("L", SIZE, 255), "marks all of"),
    "nearly.png": (Image.fromarray(np.full(SIZE[::-1], 250, np.uint8) + (disc() * 5).astype(np.uint8)), "marks all of"),
}


@pytest.mark.parametrize("name", list(WRONG_MASKS))
def test_a_mask_that_does_not_fit_is_one_sentence(name, tmp_path):
    image, words = WRONG_MASKS[name]
    photograph().save(tmp_path / "picture.png")
    path = saved(tmp_path, name, image)
    with pytest.raises(InputError, match=words) as told:
        load_dataset(tmp_path / "picture.png", mask=path)
    assert str(path) in str(told.value)
    with pytest.raises(InputError, match="That mask") as told:
        open_mask(path, photograph(), Limits())
    assert str(tmp_path) not in str(told.value)
    assert open_mask(None, photograph(), Limits()) is None


def test_what_cannot_be_read_is_no_mask(tmp_path):
    photograph().save(tmp_path / "picture.png")
    (tmp_path / "mask.png").write_text("no picture")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        load_dataset(tmp_path / "picture.png", mask=tmp_path / "mask.png")


def test_rembg_is_asked_for_masks_with_one_session(stand_in):
    for _ in range(2):
        found = cut_out(photograph())
        assert found.by == "rembg"
        assert found.share == pytest.approx(0.5)
    assert stand_in == ["u2net", ("RGB", "session", True), ("RGB", "session", True)]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(1), "rembg cannot be used without onnxruntime: pip install 'keyorbit[photos]'"),
        (ConnectionError("HTTPSConnectionPool(host='github.com'): Max retries\nand so on"), "rembg cannot load its"),
        (ValueError("hash of u2net.onnx does not match"), "(hash of u2net.onnx does not match)"),
        (
            ModuleNotFoundError("No module named 'skimage'", name="skimage"),
            "rembg cannot be used, for it needs skimage",
        ),
    ],
)
def test_without_its_network_rembg_is_told_once_and_colours_are_used(
    error, words, stand_in, monkeypatch, caplog, capsys
):
    def new_session(name):
        sys.stdout.write("advice on how to install something")
        raise error

    monkeypatch.setattr(sys.modules["rembg"], "new_session", new_session)
    assert [cut_out(photograph()).by for _ in range(2)] == ["grabcut", "grabcut"]
    assert len(caplog.messages) == 1
    assert words in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    assert capsys.readouterr().out == ""


def test_a_picture_on_which_rembg_fails_is_cut_out_by_its_colours(stand_in, monkeypatch, caplog):
    def remove(image, session=None, only_mask=False):
        raise RuntimeError("onnxruntime: out of memory\ntrace")

    monkeypatch.setattr(sys.modules["rembg"], "remove", remove)
    assert cut_out(photograph()).by == "grabcut"
    assert caplog.messages == ["rembg failed on a picture (onnxruntime: out of memory); it is cut out by its colours"]


def test_with_nothing_installed_the_background_is_kept_and_told(monkeypatch, caplog, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    thing = ObjectViews("a", photograph())
    assert thing.shown_image() is thing.input_image
    assert caplog.messages == [
        "a has things behind the object, and nothing is installed to cut it out: pip install 'keyorbit[photos]'; the "
        "background is kept"
    ]
    with pytest.raises(InputError, match=r"without rembg or OpenCV: pip install 'keyorbit\[photos\]'"):
        ObjectViews("a", photograph(), background="remove").shown_image()
    monkeypatch.setattr("keyorbit.objects.paths.find_spec", lambda name: None)
    photograph().save(tmp_path / "a.png")
    for words in (["detect", tmp_path, tmp_path / "a.png"], ["generate", tmp_path / "a.png"]):
        (tmp_path / "tokens.safetensors").touch()
        said = answer(*words, "--out", tmp_path / "out", "--background", "remove")
        assert said.sentence
        assert "--background remove needs rembg or OpenCV: pip install 'keyorbit[photos]'" in said.said


def test_nothing_everything_and_several_things_are_told(stand_in, monkeypatch, caplog):
    mask = Image.new("L", SIZE)
    monkeypatch.setattr(sys.modules["rembg"], "remove", lambda *_, **__: mask)
    assert cut_out(photograph(), name="a") is None
    mask = Image.new("L", SIZE, 255)
    assert cut_out(photograph(), name="a") is None
    apart = np.max([disc(centre=(0.25, 0.5), radius=0.2), disc(centre=(0.75, 0.5), radius=0.2)], axis=0)
    mask = Image.fromarray((apart * 255).astype(np.uint8))
    assert cut_out(photograph(), name="a").by == "rembg"
    assert caplog.messages == [
        "a shows nothing that stands out from the background (rembg); the background is kept: give --mask",
        "a shows no background, only an object (rembg); the background is kept: give --mask",
        "a shows 2 separate things (rembg), which are all taken for the object: give --mask, or --background keep",
    ]


@pytest.fixture
def run(tmp_path, backend):
    tokens = untrained(backend, DiscoverConfig(num_tokens=3, num_candidates=3))
    (tmp_path / "run").mkdir()
    tokens.save(tmp_path / "run" / "tokens.safetensors")
    return tmp_path / "run"


def test_commands_write_the_cut_out_and_take_it_as_a_mask(model_folder, run, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(
        Zero123PlusBackend, "generate", lambda self, some, *_, **__: torch.full((len(some), 3, 48, 32), 0.5)
    )
    caplog.set_level(logging.WARNING)
    share, folder = disc(centre=(0.4, 0.5)), tmp_path / "pictures"
    folder.mkdir()
    photograph(share).save(folder / "a.png")
    shown = ["--model", model_folder]
    said = answer("detect", run, folder / "a.png", "--out", tmp_path / "found", "--noises", 1, *shown)
    assert said.status == 0, said
    assert "a: cut out by its colours (GrabCut): the object is 15% of the picture; see cutout.png, and" in said.said
    assert overlap(Image.open(tmp_path / "found" / "cutout.png"), share) > 0.95
    assert json.loads((tmp_path / "found" / "keypoints.json").read_text())["input"]["cut_out_by"] == "grabcut"
    made = ["--out", tmp_path / "made", "--steps", 1, "--mask", tmp_path / "found" / "cutout.png"]
    said = answer("generate", folder / "a.png", *made, *shown)
    assert "a: cut out by the mask given: the object is 15% of the picture; see cond.png" in said.said
    assert overlap(load_object(tmp_path / "made" / "a").input_image, share) > 0.95
    about = json.loads((tmp_path / "made" / "a" / "meta.json").read_text())["generated"]
    assert (about["cut_out_by"], about["recentred"]) == ("mask", True)
    options = ["--steps", 1, "--tokens", 2, "--candidates", 2, "--batch", 1, *shown]
    said = answer("discover", folder, "--out", tmp_path / "new", "--mask", tmp_path / "found", *options)
    assert "has no mask of these pictures: one of them would be called a.png" in said.said
    said = answer("discover", folder, "--out", tmp_path / "new", *options)
    assert said.status == 0, said
    cut = tmp_path / "new" / "cutouts"
    assert overlap(load_image(cut / "a.png"), share) > 0.95
    assert load_dataset(folder, mask=cut)[0].framing.cut_out_by == "mask"


def test_cut_outs_of_a_run_that_goes_on_are_of_its_last_call(tmp_path):
    for background, names in (("auto", ["a.png"]), ("keep", [])):
        write_cut_outs(tmp_path / "cutouts", [ObjectViews("a", photograph(), background=background)], True)
        assert [path.name for path in (tmp_path / "cutouts").iterdir()] == names


def test_wrong_masks_are_told_before_anything_is_written(run, tmp_path):
    photograph().save(tmp_path / "a.png")
    Image.new("L", SIZE).save(tmp_path / "black.png")
    for words in (
        ["detect", run, tmp_path / "a.png"],
        ["generate", tmp_path / "a.png"],
        ["discover", tmp_path / "a.png"],
    ):
        for mask in ("black.png", "gone.png", "run"):
            said = answer(*words, "--out", tmp_path / "out", "--mask", tmp_path / mask)
            assert said.sentence, (words, mask, said)
            assert not (tmp_path / "out").exists()
    said = answer("discover", "--cache", tmp_path, "--out", tmp_path / "out", "--mask", tmp_path / "black.png")
    assert "--mask cannot be chosen any more" in said.said


@pytest.mark.parametrize("recentre", [True, False])
def test_a_photograph_that_a_command_reads_is_cut_out_once(recentre, tmp_path, monkeypatch):
    photograph().save(tmp_path / "a.png")
    calls = []
    monkeypatch.setattr(dataset, "cut_out", lambda *given: calls.append(given) or cut_out(*given))
    thing = load_all(tmp_path / "a.png", recentre=recentre)[0]
    assert thing.recentre == recentre
    assert thing.shown_image().mode == "RGBA"
    assert thing.framed_image is not None
    assert len(calls) == 1
