"""The commands of docs/clips.md that prepare UCF101."""

import re
import subprocess
import textwrap

from quadrant_lstm.data.clip_index import find_clips
from tests.scripts import ROOT

LISTS = {
    "train": "ApplyLipstick/v_ApplyLipstick_g08_c01.avi 2\r\nArchery/v_Archery_g08_c02.avi 3\r\n",
    "test": "ApplyLipstick/v_ApplyLipstick_g01_c01.avi\r\nArchery/v_Archery_g01_c02.avi\r\n",
}


def test_the_official_lists_divide_ucf101(tmp_path):
    (tmp_path / "ucfTrainTestlist").mkdir()
    for half, lines in LISTS.items():
        (tmp_path / f"ucfTrainTestlist/{half}list01.txt").write_bytes(lines.encode())
        for line in lines.split("\r\n")[:-1]:
            clip = tmp_path / "UCF-101" / line.split(" ")[0]
            clip.parent.mkdir(parents=True, exist_ok=True)
            clip.write_text("")
    (block,) = re.findall(r"^    for half .*?^    done$", (ROOT / "docs/clips.md").read_text(), re.M | re.S)
    subprocess.run(["bash", "-euc", textwrap.dedent(block)], cwd=tmp_path, check=True)
    found = find_clips(str(tmp_path / "ucf101"), 0.2, 0, None)
    assert found.class_names == ("ApplyLipstick", "Archery")
    assert [clip.path.name for clip in found.train] == ["v_ApplyLipstick_g08_c01.avi", "v_Archery_g08_c02.avi"]
    assert [clip.path.name for clip in found.test] == ["v_ApplyLipstick_g01_c01.avi", "v_Archery_g01_c02.avi"]
    assert all(clip.path.exists() for clip in (*found.train, *found.test))
