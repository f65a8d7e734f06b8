import matplotlib
import pytest
from matplotlib import font_manager

from quadrant_lstm.plotting import as_png, as_svg, fonts_among, new_figure, style, undrawable

UNASSIGNED = "\U000e1000"  # which no font has


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", [new_figure, style(new_figure)], ids=["plain", "in the style"])
@pytest.mark.parametrize("render", [as_png, as_svg])
def test_dollars_are_no_mathematics(draw, render):
    figure = draw()
    axes = figure.subplots()
    axes.set_xticks([0, 1], ["a$_$b", "$5_$10"])
    axes.plot([0, 1], [0, 1], label="$5_$10")
    axes.legend()
    axes.set_title("a$_$b")
    assert render(figure)


def test_a_font_with_the_characters_that_matplotlibs_lacks_is_found():
    fonts = font_manager.findSystemFonts(matplotlib.get_data_path())
    assert fonts_among(fonts, ["\U0001d465", "\U0001d7ff", UNASSIGNED]) == {
        "\U0001d465": "STIXGeneral",
        "\U0001d7ff": "STIXGeneral",
        UNASSIGNED: None,
    }
    assert fonts_among([__file__], ["a"]) == {"a": None}  # not a font


def test_characters_that_no_font_has_are_found():
    assert undrawable(f"a$_\nÄ→{UNASSIGNED}") == [UNASSIGNED]
