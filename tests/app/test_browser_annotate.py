"""The annotators' loop in a real Chromium: a point is chosen, clicked and dragged; a kill loses nothing."""

import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest

from helpers.browser import WIDE, assert_accessible, chromium, complaints, fetched, resize, screenshot, unnamed
from helpers.hostile import answer
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained
from keyorbit.objects.marks import read_annotations

pytest.importorskip("gradio", reason="the app is an extra: pip install 'keyorbit[app]'")
pytestmark = pytest.mark.browser
LONG = 240


@pytest.fixture(scope="module")
def words(backend, model_folder, chairs, tmp_path_factory):
    """The command's words, for three chairs of its own."""
    folder = tmp_path_factory.mktemp("annotate")
    shutil.copytree(chairs, folder / "data")
    untrained(backend, DiscoverConfig(num_tokens=4, num_candidates=4)).save(folder / "tokens.safetensors")
    return ["annotate", folder / "data", "--run", folder / "tokens.safetensors", "--model", model_folder]


@contextmanager
def served(words):
    """The app as a user starts it; yields its process and its address."""
    command = [sys.executable, "-m", "keyorbit", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, process.stdout.readline().split()[0].rstrip("/")
        finally:
            process.terminate()


def wait(page, selector, words=""):
    """The first element there that shows the words."""
    from selenium.webdriver.support.ui import WebDriverWait

    def look(driver):
        found = [e for e in driver.find_elements("css selector", selector) if words in (e.text or "")]
        return found[0] if found else None

    return WebDriverWait(page, LONG, 0.2).until(look, f"{selector} {words}")


def marks(page, k):
    """Where the point is on every picture, percent, and whether it was marked."""
    found = page.find_elements("css selector", f'.ko-annotate .ko-mark[data-k="{k}"]')
    return [(mark.get_attribute("transform"), "ko-set" in mark.get_attribute("class")) for mark in found]


def click_path(page):
    """Choose point 1, click it in a view, drag point 2, take that back, and confirm."""
    from selenium.webdriver import ActionChains

    assert "0 of 3" in wait(page, ".ko-annotate dl", "confirmed").text
    before = marks(page, 1)
    page.find_element("css selector", '.ko-annotate .ko-chip[data-k="1"]').click()
    picture = page.find_elements("css selector", ".ko-annotate .ko-picture")[0]
    ActionChains(page).move_to_element(picture).click().perform()
    wait(page, ".ko-said", "keypoint_01: lifted")
    after = marks(page, 1)
    assert [was[0] == now[0] for was, now in zip(before, after, strict=True)] == [False] * len(after)
    assert all(now[1] for now in after)
    chosen = page.find_elements("css selector", ".ko-annotate .ko-mark.is-chosen")
    assert {mark.get_attribute("data-k") for mark in chosen} == {"1"}
    screenshot(page, "annotate_click")
    disc = picture.find_element("css selector", '.ko-mark[data-k="2"] circle:nth-of-type(2)')
    ActionChains(page).click_and_hold(disc).move_to_element(picture).move_by_offset(4, 4).release().perform()
    wait(page, ".ko-said", "keypoint_02:")
    page.find_element("css selector", "[data-step=undo]").click()
    wait(page, ".ko-said", "undone")
    page.find_element("css selector", "[data-new]").send_keys("left ear")
    page.find_element("css selector", "[data-step=add]").click()
    wait(page, ".ko-names", "left ear")
    wait(page, '.ko-chip[data-k="4"][aria-pressed="true"]')
    assert page.find_element("css selector", "[data-new]").get_property("value") == ""
    assert_accessible(page)
    assert unnamed(page) == []
    page.find_element("css selector", "[data-step=accept]").click()
    wait(page, ".ko-annotate dl", "1 of 3")
    wait(page, "#work", "tokens refitted once")
    page.find_element("css selector", "#export").click()
    wait(page, "#exported", "annotations")
    assert wait(page, "#exported a").is_displayed()  # to be downloaded
    assert complaints(page) == []
    assert fetched(page) == []
    screenshot(page, "annotate_next", whole=True)


def test_a_click_path_and_a_kill(words):
    file = words[1] / "marks.json"
    with chromium() as page, served(words) as (process, address):
        resize(page, WIDE)
        page.get(f"{address}/?__theme=light")
        wait(page, ".ko-annotate h2", "chair")
        click_path(page)
        second = answer(*words)
        assert second.sentence
        assert "marks.json is open in another 'keyorbit annotate'" in second.said
        process.kill()
    kept = read_annotations(file)
    assert [(mark.name, mark.view) for mark in kept.marks] == [("keypoint_01", 0)]
    assert len(kept.reviewed) == 1
