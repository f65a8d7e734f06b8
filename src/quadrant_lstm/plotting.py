"""One look for all pictures: colours, sizes, letters. They have white paper of their own, on light pages and on dark
ones: ink that is to stand out from white and from TensorBoard's dark grey alike is faint on both.
"""

import io
from typing import Literal

import matplotlib
from matplotlib.figure import Figure

RIGHT, WRONG, GREY = "#4477aa", "#ee6677", "#999999"
ORDERING_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377")
GROUP_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#994455", "#004488")
# inches, at 100 pixels each. TensorBoard shows a picture 350 pixels wide (Images) or 215 high (Time Series), and makes
# a larger one smaller by leaving out pixels
WIDTH, HEIGHT = 3.5, 2.1
SCALE = 2  # how much finer pictures are in pages than in TensorBoard
SMALL, LARGE = 6.5, 7.5  # points: 9 and 10 pixels
style = matplotlib.rc_context(
    {
        "font.size": SMALL,
        "axes.titlesize": LARGE,
        "axes.labelsize": SMALL,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "figure.titlesize": LARGE,
        "axes.linewidth": 0.6,
        "axes.titlepad": 3.0,
        "axes.labelpad": 2.0,
        "xtick.major.size": 2.0,
        "ytick.major.size": 2.0,
        "xtick.major.pad": 2.0,
        "ytick.major.pad": 2.0,
        "lines.linewidth": 1.2,
        "legend.frameon": False,
        "figure.constrained_layout.w_pad": 0.02,
        "figure.constrained_layout.h_pad": 0.02,
    }
)  # @style: around what draws a picture of the size above


def new_figure(
    width: float = WIDTH, height: float = HEIGHT, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """A Figure of its own leaves pyplot's global state alone."""
    return Figure(figsize=(width, height), dpi=100, facecolor="white", layout=layout)


@style
def as_png(figure: Figure, scale: int = 1) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100 * scale)
    return png.getvalue()
