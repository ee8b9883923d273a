"""The app in a real Chromium and through its interface: a click path, bad uploads, and no way to the server's files."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from PIL import Image

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
)
from keyorbit.app.studio import EXAMPLES
from keyorbit.discovery.config import DiscoverConfig
from keyorbit.discovery.initial import untrained

pytest.importorskip("gradio", reason="the app is an extra: pip install 'keyorbit[app]'")
pytestmark = pytest.mark.browser
LONG = 240


@pytest.fixture(scope="module")
def address(backend, model_folder, tmp_path_factory):
    """The app as a user starts it, in a process of its own."""
    run = tmp_path_factory.mktemp("run")
    untrained(backend, DiscoverConfig(num_tokens=5, num_candidates=5)).save(run / "tokens.safetensors")
    command = [sys.executable, "-m", "keyorbit", "app", str(run), "--model", str(model_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        yield served.stdout.readline().split()[0].rstrip("/")
        served.terminate()


@pytest.fixture(scope="module")
def page(address):
    with chromium() as driver:
        resize(driver, WIDE)
        driver.get(f"{address}/?__theme=light")
        wait(driver, "#find")
        yield driver


def wait(page, selector, words="", gone=False):
    """The first element there that shows the words."""
    from selenium.webdriver.support.ui import WebDriverWait

    def look(driver):
        found = [e for e in driver.find_elements("css selector", selector) if words in (e.text or "")]
        return not found if gone else (found[0] if found else None)

    return WebDriverWait(page, LONG, 0.3).until(look, f"{selector} {words}")


def tab(page, name):
    wait(page, "[role=tab]", name).click()


def test_a_picture_becomes_keypoints_in_every_view_and_in_space(page):
    page.find_element("css selector", "input[type=file]").send_keys(str(EXAMPLES / "chair_2_00001" / "cond.png"))
    wait(page, "#panel .ko-panel-head", "picture")
    assert len(page.find_elements("css selector", "#panel .ko-tile")) == 7
    assert len(page.find_elements("css selector", "#panel .ko-mark")) == 7 * 5
    drawn = """const c = document.querySelector("#panel canvas.ko-scene");
    const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
    return d.filter((v, i) => i % 4 == 3 && v).length"""
    assert page.execute_script(drawn) > 500
    page.execute_script("document.querySelector('#panel .ko-chip[data-k=\"2\"]').click()")
    assert len(page.find_elements("css selector", "#panel .ko-mark.is-chosen")) == 7
    for name in ("keypoints", "coco", "points", ".html"):
        assert name in wait(page, "#downloads", name).text
    assert complaints(page) == []
    assert fetched(page) == []
    assert_accessible(page)
    screenshot(page, "app_light")


def test_points_of_ones_own_are_clicked_named_and_found_on_another_picture(page):
    from selenium.webdriver import ActionChains

    # The model is not trained, and its views are of nothing: where keypoints were found there is something of it.
    marks = page.find_elements("css selector", "#panel .ko-tile:nth-of-type(2) .ko-mark")
    there = [[float(share) / 100 for share in re.findall(r"[-.0-9]+", m.get_attribute("transform"))] for m in marks]
    first, *_, second = sorted(there)

    def click(place):
        picture = page.find_elements("css selector", ".ko-own .ko-picture")[0]
        page.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
        shift = [round(picture.size["width"] * (share - 0.5)) for share in place]
        ActionChains(page).move_to_element(picture).move_by_offset(*shift).click().perform()

    wait(page, "#own").click()
    wait(page, ".ko-own .ko-said", "Click a point")
    click(first)
    wait(page, ".ko-own .ko-said", "point 0: lifted")
    wait(page, '.ko-own .ko-chip[data-k="0"][aria-pressed="true"]')
    # In the same view a click is the next point; in another one it is the same point once more.
    click(second)
    wait(page, ".ko-own .ko-said", "point 1: lifted")
    wait(page, '.ko-own .ko-chip[data-k="1"][aria-pressed="true"]')
    other = page.find_elements("css selector", '.ko-own .ko-mark[data-k="1"] circle:nth-of-type(2)')[1]
    ActionChains(page).move_to_element(other).move_by_offset(1, 1).click().perform()
    wait(page, ".ko-own .ko-said", "point 1: triangulated")
    wait(page, ".ko-own [data-step=undo]").click()
    wait(page, ".ko-own .ko-said", "undone")
    name = page.find_element("css selector", ".ko-own [data-rename]")
    assert name.get_property("value") == "point 1"
    page.execute_script("arguments[0].select()", name)
    name.send_keys("left ear\n")
    wait(page, ".ko-own .ko-names", "left ear")
    page.find_element("css selector", "#export").click()
    wait(page, "#exported", "points")
    assert wait(page, "#exported a").is_displayed()  # to be downloaded
    assert_accessible(page)
    assert unnamed(page) == []
    screenshot(page, "app_points")
    page.find_element("css selector", "#fit").click()
    wait(page, "#fitted .ko-progress")
    wait(page, "#fitted .ko-trust", "your keypoints (2)")
    wait(page, "#exported", "tokens")
    assert_accessible(page)
    tab(page, "Keypoints")
    wait(page, "#used", "your 2 keypoints: point 0, left ear")
    page.find_elements("css selector", ".gallery-item")[2].click()
    wait(page, "#panel .ko-progress")
    wait(page, "#panel .ko-name", "left ear")
    assert len(page.find_elements("css selector", "#panel .ko-mark")) == 7 * 2
    assert page.execute_script("return document.querySelector('#panel [data-ko-show=names]').checked")
    assert complaints(page) == []
    assert_accessible(page)
    page.find_element("css selector", "#back").click()
    wait(page, "#used", "your", gone=True)


def test_a_discovery_shows_itself_and_stops_with_what_is_there(page):
    tab(page, "Discover")
    wait(page, "#discover").click()
    wait(page, "#curves .ko-chart", "total")
    page.find_element("css selector", "#stop").click()
    wait(page, "#state", "after")
    wait(page, "#preview .ko-panel", "chair")
    wait(page, "#tokens", "tokens")
    screenshot(page, "app_discover")
    assert complaints(page) == []
    assert_accessible(page)


def test_one_token_is_shown_at_every_layer(page):
    tab(page, "Attention")
    inputs = page.find_elements("css selector", "input[type=file]")
    inputs[-1].send_keys(str(EXAMPLES / "chair_2_00001" / "cond.png"))
    wait(page, "#attend").click()
    wait(page, "#layers .ko-panel", "layers")
    assert len(page.find_elements("css selector", "#layers tbody tr")) > 2
    screenshot(page, "app_attention")
    assert complaints(page) == []
    assert_accessible(page)


def test_everything_has_a_name_and_reads(page, address):
    tab(page, "Keypoints")
    for theme in ("light", "dark"):
        page.get(f"{address}/?__theme={theme}")
        prefer(page, theme)
        wait(page, "#find")
        assert unnamed(page) == []
        assert_accessible(page)
        screenshot(page, f"app_{theme}_start")
    resize(page, PHONE)
    assert overflow(page) <= 0
    screenshot(page, "app_dark_phone")


@pytest.fixture(scope="module")
def client(address):
    from gradio_client import Client

    return Client(address, verbose=False)


def test_a_program_gets_the_result_and_no_steps(client):
    from gradio_client import handle_file

    picture = handle_file(EXAMPLES / "chair_2_00001" / "cond.png")
    panel, files, cut_out = client.predict(picture, api_name="/find")
    assert "ko-panel-head" in panel
    assert {path.rpartition("/")[2] for path in files} >= {"keypoints.json", "points.glb", "keypoints.html"}
    assert cut_out is None


def test_a_bad_upload_gets_a_sentence(client, tmp_path):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (5000, 5000)).save(tmp_path / "wide.png")
    for name, words in {"text": "cannot be read as a picture", "wide": "16 million are the most"}.items():
        with pytest.raises(AppError, match=words) as caught:
            client.predict(handle_file(tmp_path / f"{name}.png"), api_name="/find")
        assert "Traceback" not in str(caught.value)
        assert "/" not in str(caught.value).replace("PNG/JPEG", "")


def test_a_file_of_11_megabytes_is_refused(address):
    body = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + bytes(11 * 2**20)
    request = urllib.request.Request(f"{address}/gradio_api/upload", body + b"\r\n--x--\r\n")
    request.add_header("Content-Type", "multipart/form-data; boundary=x")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 413


def test_no_file_of_the_server_can_be_read(address, tmp_path):
    secret = tmp_path / "secret.png"
    Image.new("RGB", (16, 16)).save(secret)
    package = EXAMPLES.parent.parent / "errors.py"
    assert package.is_file()
    for path in (secret, package, "/etc/passwd", "../../../../etc/passwd", "pyproject.toml"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}", timeout=60)
        assert caught.value.code in (403, 404)
    # A request that names a file of the server as if it had been uploaded.
    given = {"data": [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}]}
    request = urllib.request.Request(f"{address}/gradio_api/call/find", json.dumps(given).encode())
    request.add_header("Content-Type", "application/json")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    assert caught.value.code == 422


def test_it_listens_on_this_machine_alone(address):
    assert address.startswith("http://127.0.0.1:")
