"""The web service of docs/serve.md answers real requests."""

import json
import re
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from examples import measure_service
from quadrant_lstm import load_predictor
from tests.scripts import ROOT

(SERVICE,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/serve.md").read_text(), re.DOTALL)


def send(address: str, name: str, content: bytes) -> tuple[int, dict]:
    request = urllib.request.Request(f"{address}/{name}", content, method="PUT")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture(scope="module")
def service(video_run, tmp_path_factory):
    """Returns the address of a service for a run on grey videos, and the folder of its temporary files."""
    uvicorn = pytest.importorskip("uvicorn", reason="needs uvicorn")
    pytest.importorskip("fastapi", reason="needs FastAPI")
    temporary, names = tmp_path_factory.mktemp("temporary"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUN", str(video_run("grey")))
        patch.setattr(tempfile, "tempdir", str(temporary))
        exec(SERVICE, names)
        server = uvicorn.Server(uvicorn.Config(names["app"], log_level="error"))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=server.run, args=([listening],))
            thread.start()
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", temporary
            server.should_exit = True
            thread.join(20)


def test_the_web_service_classifies_files_and_explains_what_is_wrong(service, video_run, tmp_path):
    address, temporary = service
    predictor = load_predictor(video_run("grey"))
    files = sorted(video_run("grey").parents[3].glob("videos/test/*/*.mp4"))
    Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    remedy = "put the frames of a clip, and nothing else, into a folder."
    picture = f"red.png: is a single picture, but this network reads clips; {remedy}"
    answers = {}
    for file in files:
        expected = predictor(file)
        probabilities = dict(zip(("bright", "dark"), expected.probabilities, strict=True))
        answers[file] = 200, {"label": expected.label, "probabilities": probabilities, "note": ""}
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda file: send(address, file.name, file.read_bytes()), 4 * list(answers))
        assert list(found) == 4 * list(answers.values())

    broken = "cannot be read as a clip ({}); replace it, or leave it out.".format
    for name, content, status, detail in (
        ("a%20b.mp4", bytes(range(1, 251)), 422, f"a b.mp4: {broken('Invalid data found when processing input')}"),
        ("red.png", (tmp_path / "red.png").read_bytes(), 422, picture),
        ("empty.mp4", b"", 422, f"empty.mp4: {broken('it is empty')}"),
        ("large.mp4", bytes(20_000_001), 413, "large.mp4: has 20,000,001 bytes; send at most 20,000,000."),
        ("clip.npy", b"", 415, "clip.npy: send a file that ends in one of .gif, .jpg, .mp4, .png, .webm."),
    ):
        assert send(address, name, content) == (status, {"detail": detail})
    assert not list(temporary.iterdir())


def test_the_service_is_measured(service, video_run, monkeypatch, capsys):
    files = video_run("grey").parents[3] / "videos/test/dark"
    monkeypatch.setenv("RUN", str(video_run("grey")))
    measure_service.main(service[0], str(files), num_requests=6)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"{name}, {number} at once" for name in ("predictor", "service") for number in (1, 2, 8)
    ]
