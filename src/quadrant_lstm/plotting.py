"""Defines the colours, sizes and fonts of all pictures, and renders a figure as a PNG.

Pictures have a white background on light and on dark pages alike: no colour has a good contrast with both white and
TensorBoard's dark grey.
"""

import io
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

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
        **dict.fromkeys(("font.size", "axes.labelsize", "legend.fontsize"), SMALL),
        **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), SMALL),
        **dict.fromkeys(("axes.titlesize", "figure.titlesize"), LARGE),
        **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.0),
        **dict.fromkeys(("xtick.major.pad", "ytick.major.pad", "axes.labelpad"), 2.0),
        **dict.fromkeys(("figure.constrained_layout.w_pad", "figure.constrained_layout.h_pad"), 0.02),
        **{"axes.linewidth": 0.6, "axes.titlepad": 3.0, "lines.linewidth": 1.2, "legend.frameon": False},
    }
)  # the decorator of functions that draw a picture of this size


def new_figure(
    width: float = WIDTH, height: float = HEIGHT, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Returns a figure that is not registered with pyplot, whose global state would keep it alive."""
    return Figure(figsize=(width, height), dpi=100, facecolor="white", layout=layout)


@style
def as_png(figure: Figure, scale: int = 1) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100 * scale)
    return png.getvalue()
