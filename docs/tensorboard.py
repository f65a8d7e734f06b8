"""A folder of runs -> docs/tensorboard.png, what TensorBoard shows of it in headless Chromium.

python -m pip install -e ".[docs]" && python docs/tensorboard.py outputs     (needs Debian's chromium-driver)
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

SHOWN = "(train|val)/(loss|accuracy)$|belief/first|test/hidden"
PICTURE = Path(__file__).with_name("tensorboard.png")


def browser() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    profile = tempfile.mkdtemp()
    for option in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "window-size=1500,1180", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{option}")
    return webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))


def main(logdir: str) -> None:
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", logdir, "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr
        url = next(m[0] for line in server.stderr if (m := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        page = browser()
        page.get(f"{url}?darkMode=false&tagFilter={quote(SHOWN)}#timeseries")
        WebDriverWait(page, 60).until(lambda page: len(page.find_elements(By.TAG_NAME, "card-view")) >= 6)
        page.find_element(By.CSS_SELECTOR, "[aria-label='Close side pane'], .settings-sidebar button").click()
        time.sleep(5)  # the curves are drawn after their cards
        page.save_screenshot(str(PICTURE))
        page.quit()
    finally:
        server.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])
