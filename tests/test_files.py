import pytest

from quadrant_lstm.errors import UserError
from quadrant_lstm.files import read_csv, read_json, read_yaml


@pytest.mark.parametrize("read", [read_json, read_yaml, read_csv])
@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 200_000], ids=["not UTF-8", "200,000 brackets"])
def test_a_damaged_file_is_reported_in_one_line(read, content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="file: cannot be read .*; restore"):
        read(tmp_path / "file")
