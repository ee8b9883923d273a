"""A headless Chromium for the tests that look at pages, and what they ask of one."""

import base64
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


def violations(page):
    """Faults by WCAG 2.2, levels A and AA, and in the order of headings, found by axe-core: a line per element."""
    if not page.execute_script("return Boolean(window.axe)"):
        page.execute_script(_AXE.read_text(encoding="utf-8"))
    found = page.execute_async_script(_RUN_AXE)
    return [
        f"{rule['id']}: {' '.join(node['target'])} {node['html'][:160]} | {rule['help']}. {node['failureSummary']}"
        for rule in found
        for node in rule["nodes"]
    ]


def assert_accessible(page):
    """No violation; else the whole of each in the message, which pytest would shorten in a list."""
    found = violations(page)
    assert not found, "\n".join(["", *found])


def unnamed(page):
    """Drawings, regions and groups without a name: axe-core asks for none where a canvas has no role."""
    return page.execute_script(_UNNAMED)


_AXE = Path(__file__).parents[1] / "assets" / "axe-core" / "axe.min.js"
# A single digit and words with a drawn ornament beside them are judged too. Numbers in an SVG are not: axe-core reads
# `color`, and they are painted with `fill`, on discs whose contrast test_palette.py checks.
_RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run({ exclude: ["svg text"] }, {
  runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
  rules: { "heading-order": { enabled: true }, "page-has-heading-one": { enabled: true } },
  checks: { "color-contrast": { options: { ignoreLength: true, ignorePseudo: true } } },
  resultTypes: ["violations"],
}).then((results) => done(results.violations));
"""
_UNNAMED = """
return [...document.querySelectorAll("canvas, [role=region], [role=group]")].filter((e) => {
  const by = (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id));
  return e.getClientRects().length && !(e.ariaLabel || e.title || by.some((x) => x && x.textContent.trim()));
}).map((e) => e.outerHTML.slice(0, 160));
"""
