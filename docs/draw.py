"""Writes docs/draw.html with today's templates, and docs/draw.png: that page with a 5 that headless Chromium draws.

The network in docs/draw.html stays: python export.py run=RUN format=html weights=float16 writes one for another.

python -m pip install -e ".[dev]" && python -m docs.draw     (needs Debian's chromium-driver)
"""

import io
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By

from docs.tensorboard import COLOURS, chromium
from quadrant_lstm.run.drawing_page import NUM_COMPARED
from quadrant_lstm.text import render

PAGE = Path(__file__).with_name("draw.html")
WIDTH = 900
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


def resize_window(page: webdriver.Chrome, height: int) -> None:
    metrics = {"width": WIDTH, "height": height, "deviceScaleFactor": 1.5, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def with_current_templates(page: str) -> str:
    def found(pattern: str) -> str:
        (text,) = re.findall(pattern, page)
        return text

    return render(
        "drawing/page.html",
        network=json.loads(found(r'id="network">(.*)</script>')),
        weights=found(r'id="weights">(.*)</script>'),
        kind=found(r"<p>(\w+), [\d,]+ parameters"),
        num_parameters=int(found(r"([\d,]+) parameters").replace(",", "")),
        results={"test/accuracy": float(found(r"classifies ([\d.]+)\u00a0%")) / 100, "test/images": 10_000},
        unfinished=None,
        rounding=float(found(r"by at most ([\d.]+)")) - 5e-5,  # the template adds it
        subject="digit",
        num_compared=NUM_COMPARED,
    )


def main() -> None:
    PAGE.write_text(with_current_templates(PAGE.read_text()))
    with chromium() as page:
        page.get(PAGE.as_uri())
        resize_window(page, 1000)
        draw(page, [smooth(stroke) for stroke in DIGITS[5]])
        resize_window(page, page.execute_script("return document.documentElement.offsetHeight"))
        time.sleep(1)
        picture = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
        picture.quantize(COLOURS).save(PAGE.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
