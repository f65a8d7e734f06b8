"""Finds the sections of a page of the documentation."""

import re
from pathlib import Path


def sections(page: Path) -> dict[str, str]:
    """Returns the text of each section, heading included, by the name of its heading in links on GitHub."""
    _, *texts = re.split(r"^##+ ", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", text.partition("\n")[0].lower()).replace(" ", "-"): text for text in texts}
