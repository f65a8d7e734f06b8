"""Opens TensorBoard and pages in headless Chromium, and draws digits on them: for tests and for docs/figures.py."""

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

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SIZE = 1500, 1180
PATIENCE = 100  # seconds
HIGHLIGHTS = "(train|val)/(loss|accuracy)$|view_belief/example_[14]|view_test/(occluded_piece|confusion)"


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

# Returns a property of all elements that match, also of those in shadow roots and in frames
FIND = """
const [selector, property] = arguments, found = []
const search = root => {
    for (const element of root.querySelectorAll(selector)) found.push(element[property])
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
            f"user-data-dir={profile}",
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
    for _ in range(20):
        time.sleep(1)
        after = page.get_screenshot_as_png()
        if after == before:
            break
        before = after
    return Image.open(io.BytesIO(after)).convert("RGB")


# A page to draw on

Point = tuple[float, float]

# Strokes of the digits: (x, y) from the left and the top of the drawing pad, each from 0 to 1.
DIGITS: dict[int, list[list[Point]]] = {
    0: [[(0.5, 0.15), (0.36, 0.22), (0.29, 0.4), (0.29, 0.6), (0.37, 0.78), (0.5, 0.85), (0.63, 0.78), (0.71, 0.6),
         (0.71, 0.4), (0.64, 0.22), (0.5, 0.15)]],
    1: [[(0.53, 0.15), (0.47, 0.85)]],
    2: [[(0.3, 0.33), (0.35, 0.22), (0.5, 0.17), (0.65, 0.22), (0.7, 0.35), (0.6, 0.52), (0.42, 0.7), (0.28, 0.82),
         (0.74, 0.82)]],
    3: [[(0.3, 0.25), (0.42, 0.16), (0.58, 0.17), (0.67, 0.28), (0.62, 0.42), (0.46, 0.48), (0.62, 0.52),
         (0.7, 0.66), (0.63, 0.79), (0.47, 0.84), (0.3, 0.77)]],
    4: [[(0.32, 0.15), (0.28, 0.5), (0.72, 0.5)], [(0.66, 0.15), (0.62, 0.87)]],
    5: [[(0.7, 0.17), (0.36, 0.17), (0.34, 0.47), (0.52, 0.42), (0.66, 0.5), (0.7, 0.65), (0.62, 0.78), (0.47, 0.84),
         (0.3, 0.78)]],
    6: [[(0.6, 0.14), (0.45, 0.28), (0.34, 0.5), (0.33, 0.7), (0.42, 0.83), (0.57, 0.84), (0.67, 0.73), (0.64, 0.58),
         (0.5, 0.53), (0.36, 0.63)]],
    7: [[(0.28, 0.2), (0.72, 0.2), (0.6, 0.45), (0.48, 0.85)]],
    8: [[(0.64, 0.25), (0.52, 0.16), (0.38, 0.22), (0.38, 0.36), (0.6, 0.55), (0.66, 0.7), (0.55, 0.84), (0.4, 0.82),
         (0.34, 0.68), (0.45, 0.52), (0.62, 0.38), (0.64, 0.25)]],
    9: [[(0.66, 0.3), (0.55, 0.17), (0.4, 0.2), (0.34, 0.35), (0.42, 0.48), (0.57, 0.46), (0.66, 0.3), (0.65, 0.55),
         (0.58, 0.86)]],
}  # fmt: skip


def smooth(points: Sequence[Point]) -> list[Point]:
    """Puts four points on the curve between each two, as a hand would (Catmull-Rom splines)."""
    curve = list(points[:1])
    for a, b, c, d in zip([points[0], *points], points, points[1:], [*points[2:], points[-1]], strict=False):
        for t in (0.25, 0.5, 0.75, 1):
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
            x, y = (sum(w * point[axis] for w, point in zip(weights, (a, b, c, d), strict=True)) / 2 for axis in (0, 1))
            curve.append((x, y))
    return curve


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


def resize_window(page: webdriver.Chrome, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
