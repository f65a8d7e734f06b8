"""Renders the templates in templates/ as self-contained HTML pages, which need no server and no internet access."""

import base64
from datetime import timedelta
from typing import Any


def render(template: str, **values: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here, because every command imports this module

    options: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    environment = Environment(loader=PackageLoader("quadrant_lstm"), lstrip_blocks=True, **options)
    environment.filters |= {"duration": duration, "percent": percent, "png_source": png_source}
    return environment.get_template(template).render(values)


def duration(seconds: float) -> str:
    """Returns e.g. "1:23:45" for 5025."""
    return str(timedelta(seconds=round(seconds)))


def percent(share: float) -> str:
    """Returns e.g. "97.96 %" for 0.9796."""
    return f"{share:.2%}".replace("%", " %")


def counted(number: int, noun: str) -> str:
    """Returns e.g. "1 job" or "1,200 jobs"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def png_source(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
