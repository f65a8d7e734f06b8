"""Makes pictures of pages in headless Chromium. Needs selenium, of the extra `dev`, and Debian's chromium-driver."""

import io
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from quadrant_lstm.files import read_json
from quadrant_lstm.run_folder import LOG, PROVENANCE, REPORT
from quadrant_lstm.text import render

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "draw.html"
COLOURS = 128  # of a picture of a page


def save(picture: Image.Image, name: str) -> None:
    picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(DOCS / f"{name}.png", optimize=True)


# The page to draw on


def with_current_templates(page: str) -> str:
    """Returns a page to draw on with the network that it has; export.py writes one for another network."""
    (found,) = re.findall(r'id="values"[^>]*>(.*)</script>', page)
    values = json.loads(found)
    return render("drawing/page.html", values=values, **values)


FRAME_TIME, LAST_TIME = 200, 3000  # ms


def draw() -> None:
    """Writes draw.html with today's templates, draw.png with a digit drawn on it, and draw.gif: how it is drawn."""
    from tests import browser

    PAGE.write_text(with_current_templates(PAGE.read_text()))
    strokes = browser.strokes_of(5)
    with browser.chromium() as page:
        page.get(PAGE.as_uri())
        browser.resize_window(page, 900, 1000)
        browser.draw(page, strokes)
        browser.resize_window(page, 900, page.execute_script("return document.documentElement.offsetHeight"))
        save(browser.screenshot(page), "draw")
        page.execute_script("document.querySelector('footer').hidden = true")
        browser.resize_window(page, 780, 770, scale=0.8)
        ends = [(number, end) for number, stroke in enumerate(strokes) for end in range(2, len(stroke))]
        beginnings = [[*strokes[:number], strokes[number][:end]] for number, end in ends]
        pictures = []
        for beginning in [*beginnings, strokes]:
            page.execute_script("pad.clear()")
            browser.draw(page, beginning)
            shown = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
            pictures.append(shown.quantize(64, dither=Image.Dither.NONE))
    times = [FRAME_TIME] * len(beginnings) + [LAST_TIME]
    pictures[0].save(DOCS / "draw.gif", save_all=True, append_images=pictures[1:], duration=times, loop=0)


# Reports, a terminal, and TensorBoard

WIDTH, HEIGHT = 1000, 880  # CSS pixels
BELOW_THE_CURVES = (
    "return Math.ceil(document.querySelector('.pictures :is(img, svg)').getBoundingClientRect().bottom) + 12"
)
TERMINAL = """<body style="background: #1c1c1c"><pre style="color: #e8e8e8; display: inline-block;
font: 15px/1.4 monospace; margin: 0; padding: 16px 20px"><b>$ {}</b>\n{}</pre>"""
TIME_AND_LEVEL = re.compile(r"^[\d-]+ [\d:,]+ INFO ", re.MULTILINE)  # of an entry of train.log
CARDS = {  # what is cropped of a tab, a CSS selector, and the size of the window in CSS pixels
    "time_series": ("card-view", (1280, 1400)),
    "hparams": ("tf-hparams-table-view", (1340, 540)),
    "projector": ("#scatter", (1500, 900)),
}
CURVES = {"scalarSmoothing": 0, "ignoreOutliers": False}  # TensorBoard's settings: curves are whole


def reports(run: Path, sweep: Path) -> None:
    """Writes report.png and sweep.png, the tops of the reports, and terminal.png, what the run printed."""
    from tests import browser

    command = read_json(run / PROVENANCE)["command"]
    printed = TIME_AND_LEVEL.sub("", (run / LOG).read_text())
    with browser.chromium() as page:
        for name, report in (("report", run / REPORT), ("sweep", sweep / "sweep.html")):
            page.get(report.resolve().as_uri())
            browser.resize_window(page, WIDTH, HEIGHT)
            browser.resize_window(page, WIDTH, page.execute_script(BELOW_THE_CURVES), scale=1.2)
            save(browser.screenshot(page), name)
        browser.resize_window(page, 1300, HEIGHT, scale=1.5)
        page.get("data:text/html;charset=utf-8," + quote(TERMINAL.format(escape(command), escape(printed))))
        save(crop(page, browser.screenshot(page), "pre", 1.5), "terminal")


def tensorboard(runs: Path, names: Sequence[str]) -> None:
    """Writes what tabs of TensorBoard show of a folder of runs, at twice the size."""
    from tests import browser

    with browser.tensorboard(runs) as url, browser.chromium() as page:
        page.get(url)
        page.execute_script("localStorage.setItem('_tb_global_settings', JSON.stringify(arguments[0]))", CURVES)
        for name in names:
            selector, size = CARDS[name]
            browser.resize_window(page, *size, scale=2)
            browser.visit(page, url, browser.TABS[name])
            save(crop(page, browser.screenshot(page), selector, 2), f"tensorboard_{name}")


def crop(page: Any, picture: Image.Image, selector: str, scale: float) -> Image.Image:
    """Returns the smallest part of the picture that contains all elements which match a CSS selector."""
    from tests import browser

    boxes = [box for box in browser.find(page, selector, "box") if box[2] > box[0]]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return picture.crop(tuple(round(scale * edge) for edge in (min(lefts), min(tops), max(rights), max(bottoms))))
