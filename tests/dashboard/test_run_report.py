import base64
import io
import re

from PIL import Image

from quadrant_lstm.dashboard.report import AFTER_EACH_STEP, HISTORIES, SECTIONS, by_section
from quadrant_lstm.run_folder import read_results


def test_the_report_holds_the_results_and_all_pictures_with_captions(finished_run, events):
    page = (finished_run / "report.html").read_text()
    results = read_results(finished_run)
    assert f"<td>Test accuracy<td>{100 * results['test/accuracy']:.2f} %" in page
    assert f"<td>Best epoch, which was tested<td>{results['best_epoch']} of 3" in page
    headings = re.findall("<h2>(.*)</h2>", page)
    sections = [title for title in SECTIONS if title != "Other pictures"]
    assert headings == ["Result", "Curves", *sections, "Network", "Config"]
    shown = re.findall(r'alt="([^"]+)" src="data:image/png;base64,([^"]+)"', page)
    captions = [caption for caption, _ in shown]
    assert len(captions) == len(set(captions)) == len(HISTORIES) + 1 + len(events.Tags()["images"])
    assert AFTER_EACH_STEP in captions
    assert "Mistake 1" in captions
    assert not [caption for caption in captions if "/" in caption]  # words, not tags
    sizes = [Image.open(io.BytesIO(base64.b64decode(data))).size for _, data in shown]
    assert all(width > 300 and height > 200 for width, height in sizes)
    assert "<td>encoder.conv1<td>Conv2d<td>" in page
    assert "lstm_units: 5" in page
    assert "  orderings:\n  - [1, 2, 3, 4]\n" in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)  # nothing is fetched


def test_a_picture_without_a_caption_is_shown_by_its_tag():
    sections = by_section({"mine/new": b"1", "inside/conv1": b"2"})
    caption = "Output of conv1 for the input on the left: white is 0, black is the largest value of each map."
    assert sections == {"Inside the network": ("", [(caption, b"2")]), "Other pictures": ("", [("mine/new", b"1")])}
