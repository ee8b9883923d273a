"""A small or off-centre object is brought to the middle; what is framed well, or cannot be told, stays as it is."""

import numpy as np
import pytest
import torch
from PIL import Image

from keyorbit.errors import InputError
from keyorbit.objects.dataset import ObjectViews
from keyorbit.objects.framing import CUT_OUT, FILLS, OF_RIG, Framing, cut, frame, on_object


def cut_out(size, *boxes, alpha=255):
    """Transparent, with gradients in boxes."""
    pixels = np.zeros((size[1], size[0], 4), np.uint8)
    for left, top, right, bottom in boxes:
        rows, columns = np.mgrid[top:bottom, left:right]
        pixels[top:bottom, left:right] = np.stack([rows % 200, columns % 200, 0 * rows + 90, 0 * rows + alpha], -1)
    return Image.fromarray(pixels)


def on_ground(image, color, noise=0):
    ground = Image.new("RGBA", image.size, color)
    ground.alpha_composite(image)
    pixels = np.asarray(ground.convert("RGB")).astype(int)
    noisy = pixels + np.random.default_rng(0).integers(-noise, noise + 1, pixels.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("box", [(10, 20, 30, 50), (170, 0, 200, 12), (90, 90, 110, 110), (0, 190, 8, 200)])
@pytest.mark.parametrize("ground", [None, "white", (127, 127, 127), "black"])
def test_a_small_object_fills_its_part_of_the_square_and_every_pixel_is_where_the_map_says(box, ground):
    image = cut_out((200, 200), box)
    image = image if ground is None else on_ground(image, ground)
    thing = ObjectViews("a", image)
    how, picture = thing.framing, thing.framed_image
    longest, side = max(box[2] - box[0], box[3] - box[1]), picture.width
    assert picture.size == (side, side)
    assert longest / side == pytest.approx(FILLS, abs=1 / side)
    assert how.recentred
    assert how.shown == (0, 0, 200, 200)
    assert how.fills == longest / 200
    assert f"the object fills {longest / 200:.0%} of" in how.words
    mask = on_object(picture)
    rows, columns = mask.nonzero()
    assert abs(rows.min() + rows.max() + 1 - side) <= 1
    assert abs(columns.min() + columns.max() + 1 - side) <= 1
    scale, shift = how.scale_and_shift
    for row, column in zip(rows[::7].tolist(), columns[::7].tolist(), strict=True):
        x, y = ((place + 0.5) / side * scale + moved for place, moved in zip((column, row), shift, strict=True))
        assert picture.getpixel((column, row)) == image.getpixel((int(x * 200), int(y * 200)))


def test_what_is_framed_is_shown_as_it_is(objects):
    for thing in objects:
        assert thing.framed_image is thing.input_image
        assert not thing.framing.recentred
        assert thing.framing.words == ""
    assert not ObjectViews("a", cut_out((200, 200), (9, 9, 20, 20)), recentre=False).framing.recentred


@pytest.mark.parametrize("kind", ["cut-out", "of a rig", "on white"])
def test_what_is_nearly_framed_is_shown_as_it_is(kind):
    least, most = (round(200 * share) for share in (CUT_OUT if kind == "cut-out" else OF_RIG))

    def thing(left, top, right, bottom):
        image = cut_out((200, 200), (left, top, right, bottom))
        views = torch.zeros(6, 3, 8, 8) if kind == "of a rig" else None
        return ObjectViews("a", on_ground(image, "white") if kind == "on white" else image, views)

    low = 100 - least // 2
    for box in (
        (1, 1, 199, 199),
        (low, low, low + least, low + least),
        (low + most, low, low + most + least, low + least),
    ):
        assert not thing(*box).framing.recentred, box
    aside = low + most + 2
    for box in ((low, low, low + least - 2, low + least - 2), (aside, low, aside + least, low + least)):
        assert thing(*box).framing.recentred, box


@pytest.mark.parametrize("size", [(400, 200), (200, 400)])
def test_an_object_beyond_the_middle_square_is_shown_whole(size):
    width, height = size
    thing = ObjectViews("a", cut_out(size, (1, 1, width - 1, height - 1)))
    assert thing.framing.seen[2] - thing.framing.seen[0] == pytest.approx((max(size) - 2) / FILLS, abs=1)
    assert thing.framing.shown[2] - thing.framing.shown[0] == max(size) - 2
    # Small, and at an end: places are told in a square of the picture's short side that has it.
    how = ObjectViews("a", cut_out(size, (0, 0, 20, 20))).framing
    assert how.shown == (0, 0, 200, 200)
    how = ObjectViews("a", cut_out(size, (width - 20, height - 20, width, height))).framing
    assert how.shown == (width - 200, height - 200, width, height)
    assert how.shares(how.shown)[2:] == [1.0, 1.0]


def test_specks_do_not_count_and_parts_do():
    speck, part, object_box = (195, 3, 197, 4), (85, 85, 95, 95), (20, 20, 60, 60)
    assert frame(cut_out((200, 200), object_box, speck)) == frame(cut_out((200, 200), object_box))
    two = frame(cut_out((200, 200), object_box, part, speck))
    assert two.fills == 75 / 200


@pytest.mark.parametrize("alpha", [9, 60, 128, 254])
def test_a_translucent_object_is_an_object_and_its_soft_edge_ends_at_half(alpha):
    image = cut_out((200, 200), (20, 20, 60, 60), alpha=alpha)
    assert frame(image).fills == 0.2
    pixels = np.asarray(image).copy()
    pixels[19, 20:60, 3] = alpha // 3
    assert frame(Image.fromarray(pixels)).fills == 0.2


@pytest.mark.parametrize("mode", ["LA", "PA", "P", "L"])
def test_every_way_to_be_transparent_is_known(mode):
    image = cut_out((200, 200), (20, 20, 60, 60))
    if mode == "P":
        image = image.convert("RGB").quantize(8)
        image.info["transparency"] = image.getpixel((0, 0))
    elif mode == "L":
        image = image.convert("L")
        image.info["transparency"] = 0
    else:
        image = image.convert("LA" if mode == "LA" else "RGBA").convert(mode)
    assert frame(image).fills == pytest.approx(0.2, abs=0.01)


def test_nothing_at_all_is_refused():
    with pytest.raises(InputError, match=r"the input picture of cat is transparent everywhere: give a picture that"):
        _ = ObjectViews("cat", Image.new("RGBA", (64, 64))).framed_image
    assert not ObjectViews("cat", Image.new("RGBA", (64, 64)), recentre=False).framing.recentred
    for blank in ("white", "black"):
        assert not frame(Image.new("RGB", (64, 64), blank)).recentred


def test_where_the_object_is_not_told_from_the_background_nothing_is_done():
    small = cut_out((200, 200), (20, 20, 60, 60))
    assert frame(on_ground(small, "white", noise=3)).fills == 0.2
    # A cluttered photograph; and an object whose ends are as white as what is behind it.
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    assert frame(Image.fromarray(noise)) == Framing((200, 200), (0, 0, 200, 200), (0, 0, 200, 200))
    faint = on_ground(small, "white")
    faint.paste((240, 240, 240), (60, 20, 150, 60))
    assert not frame(faint).recentred
    assert on_object(faint) is None
    # An alpha channel that says nothing.
    full = small.copy()
    full.putalpha(255)
    assert frame(full).ground == (0, 0, 0)


def test_a_large_picture_is_looked_at_small():
    image = cut_out((3000, 2500), (2000, 100, 2600, 700))
    how = frame(image)
    assert how.fills == pytest.approx(600 / 2500, abs=0.003)
    left, top, right, bottom = how.seen
    assert (left + right) / 2 == pytest.approx(2300, abs=6)
    assert (top + bottom) / 2 == pytest.approx(400, abs=6)
    assert cut(image, how.seen, how.ground).size == (right - left, bottom - top)
