"""The report in a real Chromium: a click path, no complaint, no request, and no fault that axe-core finds."""

import json
import re
from itertools import pairwise

import pytest

from helpers.browser import (
    PHONE,
    WIDE,
    assert_accessible,
    chromium,
    complaints,
    fetched,
    overflow,
    prefer,
    resize,
    screenshot,
    unnamed,
    violations,
)
from keyorbit.detection.detector import KeypointDetector
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.output.page.report import Figure, read_run, report_html
from keyorbit.storage.files import write_text
from keyorbit.synthetic.dataset import DatasetSpec, make_dataset

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(backend, tmp_path_factory):
    """A report of two chairs, with ground truth, losses and scores."""
    from keyorbit.objects.dataset import load_dataset

    folder = tmp_path_factory.mktemp("report") / "chairs"
    make_dataset(folder / "data", DatasetSpec("chair", 2, seed=3, size=32))
    tokens = untrained(backend, DiscoverConfig(num_tokens=6, num_candidates=6))
    tokens.save(folder / "tokens.safetensors")
    history = [{"step": i, "total": 1 / i, "geometric": 0.3 / i} for i in range(1, 80)]
    (folder / "losses.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))
    objects = list(load_dataset(folder / "data"))
    found = [KeypointDetector(backend, tokens).detect_object(thing) for thing in objects]
    figures = [Figure("reprojection error, %", "3.0", "40.0", True)]
    write_text(folder / "report.html", report_html(read_run(folder), found, objects, figures, 2))
    return folder / "report.html"


@pytest.fixture(scope="module")
def page(report):
    with chromium() as driver:
        resize(driver, WIDE)
        prefer(driver, "light")
        driver.get(report.as_uri())
        yield driver


def pixels(page, index=0):
    """How many pixels of a scene are drawn, and a fingerprint of them."""
    script = """const c = document.querySelectorAll(".ko-scene")[arguments[0]];
    const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    let n = 0, h = 0; for (let i = 0; i < d.length; i += 4) { if (d[i + 3]) n++; h = (h * 31 + d[i] + d[i + 3]) | 0; }
    return [n, h];"""
    return page.execute_script(script, index)


def test_it_opens_from_disk_without_a_complaint_or_a_request(page):
    assert "keyorbit" in page.title
    assert complaints(page) == []
    assert fetched(page) == []
    screenshot(page, "report_light")


def test_a_keypoint_is_followed_everywhere(page):
    page.find_element("css selector", ".ko-legend .ko-chip[data-k='3']").click()
    chosen = "return [...document.querySelectorAll('.ko-mark.is-chosen')].map(e => e.dataset.k)"
    assert page.execute_script(chosen) == ["3"] * 14  # on the input and six views of two objects
    heat = "return [...document.querySelectorAll('.ko-heat.is-on')].filter(e => e.style.backgroundImage).length"
    assert page.execute_script(heat) == 14
    pressed = "return [...document.querySelectorAll('.ko-chip[aria-pressed=true]')].map(e => e.dataset.k)"
    assert set(page.execute_script(pressed)) == {"3"}
    page.execute_script("document.querySelector('.ko-more').open = true")
    assert_accessible(page)
    screenshot(page, "report_followed")
    page.find_element("tag name", "body").send_keys("\ue00c")  # escape
    assert page.execute_script(chosen) == []


def test_a_number_has_one_colour_on_pictures_chips_and_in_the_scene(page):
    colors = page.execute_script("""
        const of = (k) => [
          document.querySelector(`.ko-chip[data-k="${k}"]`).style.getPropertyValue("--c"),
          document.querySelector(`.ko-mark[data-k="${k}"]`).style.getPropertyValue("--c"),
          JSON.parse(document.querySelector(".ko-scene").dataset.koScene).points[k].color];
        return [0, 1, 2, 3, 4, 5].map(of);""")
    assert all(len(set(row)) == 1 for row in colors)
    assert len({row[0] for row in colors}) == 6


def test_the_scene_turns_with_mouse_keys_and_menu(page):
    from selenium.webdriver import ActionChains

    canvas = page.find_elements("css selector", ".ko-scene")[0]
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    seen = [pixels(page)]
    assert seen[0][0] > 500
    ActionChains(page).move_to_element(canvas).click_and_hold().move_by_offset(60, 20).release().perform()
    seen.append(pixels(page))
    for key in ("\ue014", "\ue013", "+", "-", "0"):  # right, up
        canvas.send_keys(key)
        seen.append(pixels(page))
    menu = page.find_elements("css selector", ".ko-panel:first-of-type [data-ko-look] option")
    assert [option.text for option in menu][-6:] == [f"view {i}" for i in range(6)]
    menu[-1].click()
    seen.append(pixels(page))
    for box in page.find_elements("css selector", ".ko-panel:first-of-type [data-ko-show]")[:5]:
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", box)
        box.click()
        seen.append(pixels(page))
    assert [i for i, (a, b) in enumerate(pairwise(seen)) if a == b] == []
    assert complaints(page) == []


def test_a_wheel_scrolls_the_page_until_the_scene_has_the_focus(page):
    script = """const c = document.querySelector(".ko-scene");
    arguments[0] ? c.focus({preventScroll: true}) : c.blur();
    const e = new WheelEvent("wheel", {deltaY: 60, cancelable: true}); c.dispatchEvent(e); return e.defaultPrevented"""
    assert page.execute_script(script, False) is False
    assert page.execute_script(script, True) is True


def test_everything_is_reached_by_the_keyboard_and_has_a_name(page):
    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert unnamed(page) == []
    tab = "return [...document.querySelectorAll('button, select, input, summary, canvas')].every(e => e.tabIndex >= 0)"
    assert page.execute_script(tab)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_read_in_light_and_dark_and_nothing_sticks_out(page, scheme, size):
    prefer(page, scheme)
    resize(page, size)
    page.execute_script("scrollTo(0, 0)")
    assert overflow(page) <= 0
    assert_accessible(page)
    screenshot(page, f"report_{scheme}_{'phone' if size == PHONE else 'wide'}")


def test_the_theme_can_be_chosen_against_the_system(page):
    prefer(page, "light")
    ground = "return getComputedStyle(document.body).backgroundColor"
    before = page.execute_script(ground)
    page.execute_script("document.querySelector('[data-ko-theme]').click()")
    assert page.execute_script(ground) != before
    assert_accessible(page)
    page.execute_script("document.querySelector('[data-ko-theme]').click()")
    assert page.execute_script(ground) == before


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("<p style='color:#999;background:#fff'>faint words</p>", "color-contrast: .*faint words"),
        ("<p style='color:#999;background:#fff'>7</p>", "color-contrast: .*>7<"),
        ("<button></button>", "button-name: .*<button"),
        ("<img src='data:,'>", "image-alt: .*<img"),
        ("<h5>far down</h5>", "heading-order: .*far down"),
        ("<canvas></canvas>", "<canvas"),
        ("<div role='region' tabindex='0'>words</div>", "<div role=.region"),
    ],
)
def test_a_planted_fault_is_told(page, fault, told):
    script = "const e = document.createElement('div'); e.id = 'planted'; e.innerHTML = arguments[0];"
    page.execute_script(script + "document.querySelector('main').append(e)", fault)
    lines = violations(page) + unnamed(page)
    page.execute_script("document.getElementById('planted').remove()")
    assert len(lines) == 1
    assert re.match(told, lines[0])


def test_heatmaps_of_two_objects_differ(report):
    strips = [line for line in report.read_text().split('data-strip="0"') if "base64" in line]
    assert len(strips) == 3
    first, second = (strip.split("base64,")[1].split('"')[0] for strip in strips[1:])
    assert first != second
