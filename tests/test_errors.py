from quadrant_lstm.errors import UserError


def test_a_mistake_is_one_line_whatever_a_library_reports():
    assert str(UserError("data.root: cannot be read (in line 3\n    model: [\n\tit ends); correct it.\n")) == (
        "data.root: cannot be read (in line 3 model: [ it ends); correct it."
    )
