"""TensorBoard and the pages of a run and of a sweep in headless Chromium."""

import re

import numpy as np
import pytest

from tests.scripts import succeeds

pytest.importorskip("selenium", reason="needs selenium")
from tests.browser import CHROMIUM, DRIVER, TABS, Tab, chromium, find, screenshot, tensorboard, visit
from tests.folders import TINY, sweep_folder, tiny_data

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (CHROMIUM.exists() and DRIVER.exists()), reason="needs Debian's chromium-driver"),
]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """The working directory of a sweep of two jobs."""
    cwd = tmp_path_factory.mktemp("browser")
    data = (*tiny_data(cwd), *TINY[1:])
    succeeds("train.py", "-m", *data, "model.lstm_units=3,5", cwd=cwd)
    return cwd


@pytest.fixture(scope="module")
def page():
    with chromium() as page:
        yield page


@pytest.fixture(scope="module")
def shown(sweep, page):
    """A function that returns the page with a tab of TensorBoard, once the tab shows its data."""
    with tensorboard(sweep / "outputs") as url:

        def show(tab):
            visit(page, url, tab if isinstance(tab, Tab) else TABS[tab])
            picture = screenshot(page)
            picture.save(sweep / f"{tab if isinstance(tab, str) else 'tab'}.png")  # for inspection after a failure
            assert np.asarray(picture.convert("L"), float)[100:, 300:].std() > 5, "nothing is drawn"
            return page

        yield show


def test_images_are_not_resized(shown):
    page = shown("images")
    assert set(find(page, "img", "naturalWidth")) == set(find(page, "img", "width")) == {350}
    assert {f"view_belief/example_{number}" for number in range(1, 7)} <= set(find(page, "tf-image-loader", "tag"))


def test_custom_scalars_show_the_four_steps_in_one_chart(shown):
    page = shown("custom_scalars")
    titles = [text.strip() for text in find(page, "tf-card-heading", "displayName")]
    assert titles == ["accuracy after each step", "loss", "accuracy"]
    steps = [f"val/accuracy_step_{step}" for step in range(1, 5)]
    assert find(page, "tf-custom-scalar-multi-line-chart-card", "tagRegexes")[0] == steps


def test_the_graph_shows_the_network(shown):
    assert "CNNLSTM" in find(shown("graphs"), "g.nodeshape title, text.nodelabel title", "textContent")


def test_hparams_shows_the_varied_key_and_the_metrics(shown):
    cells = [text.strip() for text in find(shown("hparams"), "vaadin-grid-cell-content")]
    metrics = ["test/accuracy", "test/loss", "val/best_accuracy"]
    assert cells[:6] == ["Trial ID", "Show Metrics", "model.lstm_units", *metrics]
    assert {"3.0000", "5.0000"} <= set(cells)
    assert not [cell for cell in cells if cell.startswith("-")]


@pytest.mark.reliability  # the tab takes half a minute
def test_the_projector_holds_the_last_states(shown):
    assert find(shown("projector"), ".numDataPoints") == ["70"]


def test_time_series_shows_the_selected_pictures(shown):
    page = shown("time_series")
    cards = " ".join(find(page, "card-view", "textContent"))
    shown_tags = re.findall(r"view_(belief/\w+?)sweeps", cards)
    selected = ["belief/example_1"] * 2 + ["belief/example_4"] * 2
    assert len(shown_tags) >= 2  # TensorBoard fills the cards that are visible
    assert shown_tags == selected[: len(shown_tags)]
    assert set(find(page, "img", "naturalWidth")) == {350}


def test_time_series_opens_on_curves(shown):
    page = shown(TABS["time_series"]._replace(address="#timeseries", close=""))
    cards = find(page, "card-view", "textContent")
    assert [card.startswith("test/") for card in cards[:6]] == [True] * 6
    assert not find(page, "img", "naturalWidth")


def test_no_page_is_wider_than_the_window(sweep, page):
    folder = sweep_folder(sweep)
    for width in (360, 768, 1280):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 768}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for file in (folder / "sweep.html", folder / "0/report.html"):
            page.get(file.as_uri())
            assert page.execute_script("return document.documentElement.scrollWidth") <= width, file
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
