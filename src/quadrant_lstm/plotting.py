"""Defines the colours, sizes and fonts of all pictures, and renders a figure as a PNG or an SVG.

Pictures have a white background on light and on dark pages alike: no colour has a good contrast with both white and
TensorBoard's dark grey.
"""

import io
from collections.abc import Collection, Sequence
from typing import Any, Literal

import matplotlib
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

CORRECT, WRONG, GREY = "#4477aa", "#ee6677", "#999999"
ORDERING_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377")
GROUP_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#994455", "#004488")
# inches, at 100 pixels per inch. TensorBoard shows a picture 350 pixels wide (Images) or 215 pixels high (Time Series),
# and shrinks a larger one by dropping pixels
WIDTH, HEIGHT = 3.5, 2.1
TITLE_HEIGHT = 0.2
MAX_LABELLED_CLASSES = 10  # more names or numbers would overlap
SCALE = 2  # resolution of a picture in an HTML page, relative to TensorBoard
SMALL, LARGE = 6.5, 7.5  # points: 9 and 10 pixels
style = matplotlib.rc_context(
    {
        **{"font.size": SMALL, "axes.titlesize": LARGE, "figure.titlesize": LARGE},  # others are relative to font.size
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.0),
        **dict.fromkeys(("xtick.major.pad", "ytick.major.pad", "axes.labelpad"), 2.0),
        **dict.fromkeys(("figure.constrained_layout.w_pad", "figure.constrained_layout.h_pad"), 0.02),
        **{"axes.linewidth": 0.6, "axes.titlepad": 3.0, "lines.linewidth": 1.2, "legend.frameon": False},
    }
)  # the decorator of functions that draw and save pictures of this size


def new_figure(
    width: float = WIDTH, height: float = HEIGHT, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Returns a figure that is not registered with pyplot, whose global state would keep it alive."""
    return Figure(figsize=(width, height), dpi=100, facecolor="white", layout=layout)


def new_axes(**properties: Any) -> tuple[Figure, Axes]:
    """Returns a new figure with axes that have these properties, e.g. a title."""
    figure = new_figure()
    return figure, figure.subplots(subplot_kw=properties)


def titled_page(height: float) -> tuple[Figure, Axes]:
    """Returns a new figure with an area of this height for one picture, and room for a title above it."""
    figure = new_figure(height=height + TITLE_HEIGHT, layout=None)
    axes = figure.add_axes((0, 0, 1, height / (height + TITLE_HEIGHT)))
    axes.set_axis_off()
    return figure, axes


def blank(axes: Axes) -> None:
    """Leaves out all of the axes but their picture and texts."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def label_cells(axes: Axes, texts: Sequence[Sequence[str]], is_dark: Sequence[Sequence[bool]]) -> None:
    """Writes a text on each cell of a matrix, white on the dark ones."""
    for row, (of_row, dark_of_row) in enumerate(zip(texts, is_dark, strict=True)):
        for column, (text, dark) in enumerate(zip(of_row, dark_of_row, strict=True)):
            axes.text(column, row, text, ha="center", va="center", color="white" if dark else "black")


def as_png(figure: Figure, scale: int = 1) -> bytes:
    png = io.BytesIO()
    show_texts_as_written(figure)
    figure.savefig(png, format="png", dpi=100 * scale)
    return png.getvalue()


def as_svg(figure: Figure) -> str:
    """Returns the SVG element without the XML header, for an HTML page."""
    svg = io.StringIO()
    show_texts_as_written(figure)
    figure.savefig(svg, format="svg")
    return "<svg" + svg.getvalue().partition("<svg")[2]


# Texts: a class or a swept value may have any name.


def show_texts_as_written(figure: Figure) -> None:
    """Draws `$` as it is, and characters that matplotlib's font lacks in other fonts of this machine. Logarithmic axes
    need a formatter of their own, because matplotlib's writes powers between `$`.
    """
    texts = figure.findobj(Text)
    families = fonts_of("".join(text.get_text() for text in texts)).values()
    fallbacks = list(dict.fromkeys(filter(None, families)))
    for text in texts:
        text.set(parse_math=False, fontfamily=[*text.get_fontfamily(), *fallbacks])


def undrawable(text: str) -> list[str]:
    """Returns the characters that no font of this machine has."""
    return [character for character, family in fonts_of(text).items() if family is None]


_fonts: dict[str, str | None] = {}  # what fonts_of has found so far: to look through all fonts takes up to seconds


def fonts_of(text: str) -> dict[str, str | None]:
    """Returns the font family that has each character: "" is matplotlib's own, None means that no font has it."""
    if new := set(text) - _fonts.keys():
        default = FT2Font(font_manager.findfont(font_manager.FontProperties()))
        missing = {each for each in new if not each.isspace() and not default.get_char_index(ord(each))}
        # matplotlib's own list of fonts may be older than a font
        others = fonts_among(font_manager.findSystemFonts(), missing) if missing else {}
        _fonts.update(dict.fromkeys(new, "") | others)
    return {character: _fonts[character] for character in text}


def fonts_among(paths: Sequence[str], characters: Collection[str]) -> dict[str, str | None]:
    """Prefers the fonts that have most of the characters, so that few are mixed, and among these the regular ones."""
    candidates = []
    for path in sorted(paths):
        try:
            font = FT2Font(path)
        except (RuntimeError, OSError):  # not a font that FreeType reads
            continue
        has = {each for each in characters if font.get_char_index(ord(each))}
        is_boxes = font.family_name.replace(" ", "").startswith("LastResort")
        if has and font.scalable and not is_boxes:
            candidates.append((len(has), font.style_name == "Regular", path, font.family_name, has))
    found: dict[str, str | None] = dict.fromkeys(characters)
    for *_, path, family, has in sorted(candidates, key=lambda candidate: candidate[:2], reverse=True):
        if new := [character for character in has if found[character] is None]:
            font_manager.fontManager.addfont(path)
            found |= dict.fromkeys(new, family)
    return found
