"""load_predictor gives what predict.py writes, to the last bit, also to several threads at once."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from quadrant_lstm import load_predictor
from quadrant_lstm.errors import UserError
from quadrant_lstm.run.predict import predict
from tests.clips import noise_clip, write_folder, write_video


def written(run, files, tmp_path):
    """Returns what predict.py writes about the files, which is the only content of their folder."""
    predict(run, str(files[0].parent), None, f"{tmp_path}/x.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == list(map(str, files))
    return [(row["prediction"], row["probabilities"]) for row in rows]


def test_images_in_files_and_arrays_are_classified_as_by_predict(finished_run, tiny, files, tmp_path):
    images = [*tiny.test_images[:5, 0], np.zeros((8, 8), np.uint8)]
    predictor, expected = load_predictor(finished_run), written(finished_run, files, tmp_path)
    assert predictor.classes == ("0", "1", "2")
    in_colour = [np.repeat(image[:, :, None], 3, axis=2) for image in images]
    for samples in (files, list(map(str, files)), images, list(map(torch.from_numpy, images)), in_colour):
        predictions = predictor(samples)
        assert [(each.label and int(each.label), each.steps) for each in predictions] == expected
        assert [each.probabilities for each in predictions] == [steps[-1] if steps else [] for _, steps in expected]
    assert predictions[5].label is None
    (alone,) = predictor([files[0]])
    assert predictor(files[0]) == predictor(images[0]) == alone
    assert alone.label == str(int(np.argmax(alone.probabilities)))
    assert predictor([]) == []


def test_clips_in_files_and_arrays_are_classified_as_by_predict(video_run, tmp_path):
    frames = {number: noise_clip(number, 24, 24) for number in (3, 9, 30)}
    for number in (3, 30):
        write_folder(tmp_path / f"clips/{number}", frames[number])
    np.save(tmp_path / "clips/9.npy", frames[9])
    write_video(tmp_path / "clips/40.mp4", noise_clip(40, 24, 24))
    files = [tmp_path / f"clips/{name}" for name in ("3", "9.npy", "30", "40.mp4")]
    predictor, expected = load_predictor(video_run("grey")), written(video_run("grey"), files, tmp_path)
    assert [(each.label, each.steps) for each in predictor(files)] == expected
    assert predictor.classes == ("bright", "dark")
    arrays = [*frames.values(), files[3]]
    assert [(each.label, each.steps) for each in predictor(arrays)] == expected
    assert predictor(files[0]) == predictor(frames[3])


def test_eight_threads_get_what_one_gets(finished_run, video_run, files):
    videos = sorted(video_run("colour").parents[3].glob("videos/test/*/*.mp4"))
    for run, samples in ((finished_run, files), (video_run("colour"), videos)):
        predictor = load_predictor(run)
        expected = [predictor(sample) for sample in samples]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(predictor, 4 * samples)) == 4 * expected


def test_what_is_no_sample_is_refused(finished_run, video_run, files, tmp_path):
    image, clip = load_predictor(finished_run), load_predictor(video_run("grey"))
    rule = "give {}, or without the 3 for grey, and several as a list."
    other = "a sample is a PngImageFile; give a path, or an array, such as numpy.asarray(sample)."
    page, frames = np.zeros((8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)
    for predictor, array, message in (
        (image, Image.open(files[0]), other),
        (image, page / 255, "the array is float64; give uint8, with values from 0 to 255."),
        (image, frames, "the array is [3, 8, 8]; " + rule.format("[height, width, 3]")),
        (image, page[0], "the array is [8]; " + rule.format("[height, width, 3]")),
        (image, page[:0], "the array is [0, 8]; " + rule.format("[height, width, 3]")),
        (clip, page, "the array is [8, 8]; " + rule.format("[frames, height, width, 3]")),
        (clip, frames[:, :0], "the array is [3, 0, 8]; " + rule.format("[frames, height, width, 3]")),
        (clip, frames[..., None], "the array is [3, 8, 8, 1]; " + rule.format("[frames, height, width, 3]")),
    ):
        for samples in (array, [array]):
            with pytest.raises(ValueError) as refusal:
                predictor(samples)
            assert str(refusal.value) == message
    (tmp_path / "garbage.png").write_text("garbage")
    with pytest.raises(UserError, match=r"garbage.png: cannot be read as an image \("):
        image([files[0], tmp_path / "garbage.png"])
    with pytest.raises(UserError, match="invert: is for images, but this run reads clips; leave it out."):
        clip(frames, invert=True)
