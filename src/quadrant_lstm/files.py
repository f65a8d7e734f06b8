"""Reads files of JSON, YAML and CSV, and writes any file whole or not at all. Imports no torch."""

import contextlib
import csv
import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from quadrant_lstm.errors import UserError, printable


def expanded(path: str) -> Path:
    """Replaces ~ by the user's home. A ~name that does not exist stays, where Path.expanduser would raise an error."""
    return Path(os.path.expanduser(path))


def check_output(output: str | None, suffixes: Sequence[str]) -> None:
    """Raises UserError if the key `output` does not name a file with one of the suffixes, in a folder that exists."""
    if output is None:
        return
    if Path(output).suffix.lower() not in suffixes:
        raise UserError(f"output: {output} does not end in {' or '.join(suffixes)}; write such a name.")
    file = expanded(output)
    if file.is_dir():
        raise UserError(f"output: {output} is a folder; write the path of a file.")
    folder = file.absolute().parent
    if not folder.is_dir():
        reason = "is not a folder;" if folder.exists() else "does not exist; create it, or"
        raise UserError(f"output: the folder of {output} {reason} write another path.")


class WriteError(UserError):
    """A file cannot be written. The caller that knows its purpose adds how to resume, or where else to write."""

    def with_remedy(self, remedy: str) -> UserError:
        return UserError(f"{str(self).removesuffix('.')}; {remedy}.")


def write_atomically(file: Path, content: bytes) -> None:
    """Writes a file so that a reader finds either the previous version or the new one, even if the process is killed.

    It writes a temporary file in the same folder, syncs it to the disk, and renames it. Raises WriteError on failure.
    """
    staged = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(staged, file)
    except OSError as error:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        intact = "; its previous version is intact" if os.path.exists(file) else ""
        raise WriteError(f"{file}: cannot be written ({error.strerror}){intact}. Fix it and rerun.") from error
    with contextlib.suppress(OSError):  # Windows cannot open a folder
        descriptor = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # makes the renaming durable
        finally:
            os.close(descriptor)


def remove_staged(folder: Path) -> None:
    """Removes the temporary files that killed processes have left in the folder of a run or a sweep."""
    for place in (folder, folder / "checkpoints", folder / ".hydra"):
        for file in place.glob(".*.*"):
            if re.fullmatch(r"\..+\.\d+", file.name) and not Path("/proc", file.suffix[1:]).exists():
                file.unlink(missing_ok=True)  # outside Linux also those of a process that writes them now


def read_json(file: Path) -> dict[str, Any]:
    """Returns the content of the file, or nothing if there is none. Raises UserError if it is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read ({error}); restore or delete it.") from error
    return content


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    write_atomically(file, (json.dumps(content, indent=2) + "\n").encode())


def read_yaml(file: Path) -> Any:
    """Reads a config or a list of overrides, possibly from an untrusted folder. Raises UserError for a damaged file."""
    try:
        return parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file}: cannot be read ({error}); restore it.") from error


def wrong_encoding(folder: Path) -> UserError | None:
    """Returns the error about a YAML file below the folder that is not UTF-8: Hydra's does not name it."""
    for file in sorted(folder.rglob("*.yaml")):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            return UserError(f"{file}: is not UTF-8 text ({error.reason}); save it as UTF-8.")
    return None


def parse_yaml(text: str) -> Any:
    """Raises ValueError for YAML aliases: nine levels of nine aliases stand for 387 million values; runs write none."""
    if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise ValueError("it uses YAML aliases")
    return OmegaConf.load(io.StringIO(text))


class OneLinePerList(yaml.SafeDumper):
    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, not any(isinstance(value, list | dict) for value in sequence))


def yaml_with_short_lists(file: Path) -> str:
    """Returns the content of the file for a reader, with each list of single values on one line."""
    content = OmegaConf.to_container(read_yaml(file))
    return yaml.dump(content, Dumper=OneLinePerList, sort_keys=False, allow_unicode=True, width=math.inf)


def read_csv(file: Path) -> list[dict[str, str]]:
    """Returns the rows by the names of their columns, or nothing if there is no file.

    Raises UserError if it is damaged.
    """
    if not file.exists():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            return list(csv.DictReader(opened))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read ({error}); restore it.") from error


def csv_cell(value: Any) -> Any:
    """Puts an apostrophe before a text that a spreadsheet would run as a formula, and replaces what could steer a
    terminal. Numbers, also as texts, stay.

    Source: OWASP, CSV Injection.
    """
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    text = printable(value, kept="\t\r\n")
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the header and the rows; values that have no column are left out, missing ones are empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows([csv_cell(row.get(column, "")) for column in columns] for row in rows)
    return text.getvalue()
