"""One look for all pictures: colours and sizes."""

import io
from typing import Literal

from matplotlib.figure import Figure

RIGHT, WRONG, GREY = "#4477aa", "#ee6677", "#999999"
ORDERING_COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377")
GROUP_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#994455", "#004488")


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Sizes in inches, at 100 pixels each; a Figure of its own leaves pyplot's global state alone."""
    return Figure(figsize=(width, height), dpi=100, facecolor="white", layout=layout)


def as_png(figure: Figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()
