"""A headless Chromium for the tests that look at pages, and what they ask of one."""

import base64
import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
WIDE, PHONE = (1280, 900), (390, 844)
# Chromium asks servers of its own for updates, and says so on the console of no page; nothing else may be asked for.
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@contextmanager
def chromium():
    """A driver, or a skip that says what is missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium comes with [dev]")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium with chromedriver here: on Debian, apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in _FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        page.set_page_load_timeout(240)
        page.set_script_timeout(120)
        yield page
    finally:
        page.quit()


def resize(page, size):
    """The page's own size, which the window's is not, and no less than 500 wide."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def prefer(page, scheme):
    """``light`` or ``dark``, as the system would say."""
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def screenshot(page, name, whole=False):
    """Keep a picture under build/screenshots."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    if whole:
        shot = page.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
    else:
        page.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


def complaints(page):
    """Errors on the console since the last call."""
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def fetched(page):
    """Addresses that the page asked for, other than data and its own."""
    names = page.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    own = page.execute_script("return location.origin")
    return [name for name in names if not name.startswith(("data:", "blob:", f"{own}/")) or own == "null"]


def overflow(page):
    """How many pixels the page is wider than the window."""
    return page.execute_script("return document.documentElement.scrollWidth - innerWidth")


def unnamed(page, within="body"):
    """Things to press, choose or look at that have no name for who cannot see them."""
    return json.loads(page.execute_script(_NAMES, within))


def faint_words(page, within="body", ratio=4.5):
    """Texts whose contrast with what is behind them is below ``ratio`` (WCAG 2, level AA)."""
    return json.loads(page.execute_script(_CONTRAST, within, ratio))


_NAMES = """
const bad = [];
for (const e of document.querySelector(arguments[0]).querySelectorAll(
    "button, select, input, textarea, img, canvas, a[href], svg[role=img], [role=region], [role=group]")) {
  if (!e.getClientRects().length || e.type === "hidden") continue;
  const by = (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id))
    .filter(Boolean).map((x) => x.textContent).join("");
  const name = e.getAttribute("aria-label") || by || e.getAttribute("alt") || e.title || e.textContent.trim()
    || [...(e.labels || [])].map((l) => l.textContent.trim()).join("") || e.placeholder;
  const decoration = e.tagName === "IMG" && e.getAttribute("alt") === "";
  if (!name && !decoration && e.getAttribute("aria-hidden") !== "true") bad.push(e.outerHTML.slice(0, 160));
}
return JSON.stringify(bad);
"""

_CONTRAST = """
const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length > 3 ? m : [...m, 1]; };
const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
const light = (c) => { const l = c.slice(0, 3).map(linear);
  return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2]; };
const bad = [], limit = arguments[1];
for (const e of document.querySelector(arguments[0]).querySelectorAll("*")) {
  const words = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join("");
  if (!words || !e.getClientRects().length || e.closest("svg, option, [disabled], [aria-disabled=true]")) continue;
  const style = getComputedStyle(e);
  if (style.visibility === "hidden" || style.opacity === "0" || !style.color.startsWith("rgb")) continue;
  let behind = [255, 255, 255, 1]; const stack = [];
  for (let x = e; x; x = x.parentElement) {
    const c = getComputedStyle(x).backgroundColor;
    if (c.startsWith("rgb")) { const p = parse(c); if (p[3]) { stack.push(p); if (p[3] === 1) break; } }
  }
  for (const c of stack.reverse()) behind = over(c, behind);
  const [a, b] = [light(over(parse(style.color), behind)), light(behind)].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05), large = parseFloat(style.fontSize) >= 24;
  if (contrast >= (large ? 3 : limit)) continue;
  bad.push(`${contrast.toFixed(2)}: ${words.slice(0, 60)} ${e.outerHTML.slice(0, 60)}`);
}
return JSON.stringify(bad);
"""
