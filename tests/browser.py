"""Opens TensorBoard and pages in headless Chromium, and draws digits on them: for tests and for docs/figures/."""

import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from urllib.request import urlopen

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.photographs import DIGITS, Point, smooth

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SIZE = 1500, 1180
PATIENCE = 100  # seconds
HIGHLIGHTS = "(train|val)/accuracy$|view_belief/example_[14]|view_test/(occluded_piece|confusion)"


class Tab(NamedTuple):
    address: str
    shown: str  # a CSS selector of what is shown with its data
    least: int = 1  # how many elements match it then
    close: str = ""  # a CSS selector of a button that closes what covers the data


POINTS = "path.symbol, path.line[d]"  # of charts
TABS = {
    "time_series": Tab(f"?tagFilter={quote(HIGHLIGHTS)}#timeseries", "card-view", 6, "[aria-label='Close side pane']"),
    "scalars": Tab("#scalars", POINTS, 6),
    "images": Tab("#images", "img", 12),
    "custom_scalars": Tab("#custom_scalars", POINTS, 8),
    "graphs": Tab("#graphs", "text.nodelabel", 1),
    "pr_curves": Tab("#pr_curves", POINTS, 3),
    "hparams": Tab("#hparams", "vaadin-grid-cell-content", 8),
    "projector": Tab("#projector", ".numDataPoints"),
}

# Returns a property of all elements that match, also of those in shadow roots and in frames, or where they are shown
FIND = """
const [selector, property] = arguments, found = []
const box = element => {
    const { x, y, width, height } = element.getBoundingClientRect()
    const frame = element.ownerDocument.defaultView.frameElement?.getBoundingClientRect() ?? { x: 0, y: 0 }
    return [frame.x + x, frame.y + y, frame.x + x + width, frame.y + y + height]
}
const search = root => {
    for (const element of root.querySelectorAll(selector)) {
        found.push(property == "box" ? box(element) : element[property])
    }
    for (const element of root.querySelectorAll("*")) {
        if (element.shadowRoot) search(element.shadowRoot)
        if (element.tagName == "IFRAME" && element.contentDocument) search(element.contentDocument)
    }
}
search(document)
return found
"""


@contextlib.contextmanager
def tensorboard(logdir: Path) -> Iterator[str]:
    """Yields the address of a TensorBoard server that has read the folder."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr
        url = next(m[0] for line in server.stderr if (m := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        deadline = time.monotonic() + PATIENCE
        wanted = {"hparams", *(["projector"] if any(logdir.rglob("projector_config.pbtxt")) else [])}
        while not active(url) >= wanted and time.monotonic() < deadline:
            time.sleep(0.5)  # a request makes TensorBoard look for their data; a later one lists them
        yield url
    finally:
        server.terminate()
        server.communicate()


def active(url: str) -> set[str]:
    with urlopen(f"{url}data/plugins_listing") as listing:
        return {name for name, plugin in json.load(listing).items() if plugin["enabled"]}


@contextlib.contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for option in (
            "headless", "no-sandbox", "use-angle=swiftshader", "enable-unsafe-swiftshader", "no-first-run",
            "disable-quic", "disable-sync", "disable-background-networking", "disable-component-update",
            "hide-scrollbars", f"user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(f"--{option}")
        page = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
        try:
            page.set_window_size(*SIZE)
            yield page
        finally:
            page.quit()


def visit(page: webdriver.Chrome, url: str, tab: Tab) -> None:
    """Opens a tab and returns when its data are shown. Raises TimeoutException."""
    page.get("about:blank")
    page.get(url + tab.address)
    WebDriverWait(page, PATIENCE).until(lambda page: len(find(page, tab.shown, "tagName")) >= tab.least)
    if tab.close:
        page.find_element(By.CSS_SELECTOR, tab.close).click()


def find(page: webdriver.Chrome, selector: str, attribute: str = "innerText") -> list[Any]:
    return page.execute_script(FIND, selector, attribute)


def screenshot(page: webdriver.Chrome) -> Image.Image:
    """Returns a picture of the page when two in a row are equal."""
    before = b""
    for _ in range(40):
        time.sleep(0.5)
        after = page.get_screenshot_as_png()
        if after == before:
            break
        before = after
    return Image.open(io.BytesIO(after)).convert("RGB")


# A page to draw on


def strokes_of(digit: int) -> list[list[Point]]:
    """Returns the strokes of a digit: (x, y) from the left and the top of the drawing pad, each from 0 to 1."""
    return [[(0.28 + 0.44 * x, 0.15 + 0.7 * y) for x, y in smooth(stroke)[::5]] for stroke in DIGITS[digit]]


def draw(page: webdriver.Chrome, strokes: Sequence[Sequence[Point]], kind: str = "mouse") -> None:
    """Draws on the pad by a "mouse", a "pen" or by "touch", and waits until the prediction is shown."""
    pad = page.find_element(By.ID, "pad")
    page.execute_script("arguments[0].scrollIntoView({ block: 'center' })", pad)
    box = page.execute_script("return arguments[0].getBoundingClientRect()", pad)
    actions = ActionBuilder(page, mouse=PointerInput(kind, kind), duration=10)
    for stroke in strokes:
        places = [(round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])) for x, y in stroke]
        actions.pointer_action.move_to_location(*places[0]).pointer_down()
        for place in places[1:]:
            actions.pointer_action.move_to_location(*place)
        actions.pointer_action.pointer_up()
    actions.perform()
    settle(page)


def settle(page: webdriver.Chrome) -> None:
    page.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")


def resize_window(page: webdriver.Chrome, width: int, height: int, scale: float = 1.5) -> None:
    """Sets the size in CSS pixels, and how many pixels of a picture each of them has."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
