"""A run's folder and the pictures of it -> report.html: one file that needs no server and no network."""

import base64
import html
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quadrant_lstm.dashboard.pictures.history import HISTORIES, draw_history
from quadrant_lstm.plotting import SCALE, as_png
from quadrant_lstm.run_folder import CONFIG, METRICS, PROVENANCE, REPORT, read_rows, write_whole

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 68em; padding: 0 1em }
table { border-collapse: collapse } td { padding: .15em 1.2em .15em 0 } pre { overflow-x: auto; font-size: 13px }
main { display: flex; flex-wrap: wrap; gap: 1.5em } figure { margin: 0; width: 31em; max-width: 100% }
img { border-radius: 6px; display: block; width: 100% } figcaption { font-size: 13px }
"""


def write_page(folder: Path, results: Mapping[str, Any], pictures: Mapping[str, bytes], network: str) -> None:
    """`results` are those of results.json, which is written after it; `pictures` are PNGs, `network` is the table of
    its stages.
    """
    provenance = json.loads((folder / PROVENANCE).read_text())
    rows, best_epoch = read_rows(folder / METRICS), results["best_epoch"]
    histories = {title: as_png(draw_history(title, rows, best_epoch), SCALE) for title in HISTORIES}
    title = f"{results['test/accuracy']:.2%} of {results['test/images']:,} test images"
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(folder.name)}: {title}</title>",
        f"<style>{STYLE}</style><h1>{title}</h1><p><code>{html.escape(provenance['command'])}</code></p>",
        "<table>",
        *(f"<tr><td>{html.escape(name)}<td>{html.escape(str(value))}" for name, value in results.items()),
        "</table>",
        "<h2>Pictures</h2><main>",
        *as_figures({**histories, **pictures}),
        "</main>",
        f"<h2>Network</h2><pre>{html.escape(network)}</pre>",
        f"<h2>Config</h2><pre>{html.escape((folder / CONFIG).read_text())}</pre>",
    ]
    write_whole(folder / REPORT, "\n".join(parts).encode())


def as_figures(pictures: Mapping[str, bytes]) -> Iterator[str]:
    for name, picture in pictures.items():
        source = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        name = html.escape(name)
        yield f'<figure><img alt="{name}" src="{source}"><figcaption>{name}</figcaption></figure>'
