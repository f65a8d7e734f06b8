import matplotlib
from matplotlib import font_manager

from quadrant_lstm.plotting import fonts_among, undrawable

UNASSIGNED = "\U000e1000"  # which no font has


def test_fonts_that_have_the_characters_that_matplotlibs_lacks_are_found():
    fonts = font_manager.findSystemFonts(matplotlib.get_data_path())
    found = fonts_among([*fonts, __file__], ["\U0001d465", "\U0001d7ff", UNASSIGNED])  # a file is no font
    assert found == {"\U0001d465": "STIXGeneral", "\U0001d7ff": "STIXGeneral", UNASSIGNED: None}
    assert undrawable(f"a$_\nÄ→{UNASSIGNED}") == [UNASSIGNED]
