"""Checks keys and the kinds of their values. Imports no torch."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quadrant_lstm.config.messages import example, missing_key, unknown_key
from quadrant_lstm.errors import UserError
from quadrant_lstm.kinds import in_words


def check_keys(config: Mapping[str, Any], kinds: Mapping[str, Any], groups: Iterable[str] = ()) -> None:
    for key, value in config.items():
        if key in kinds:
            check_value(key, value, kinds[key])
        elif key not in groups:
            raise unknown_key(key, [*kinds, *groups])


def check_value(key: str, value: Any, kind: Any) -> None:
    if value == "???":
        raise missing_key(key)
    if value == "":
        raise UserError(f"{key}: is empty; give a value, or leave it out.")
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        typed = {"None": "null", "True": "true", "False": "false"}.get(repr(value), repr(value))
        rule = in_words(kind)  # some rules name the remedy
        raise UserError(f"{key}: {typed} is not {rule if ';' in rule else f'{rule}; write {example(key)}'}.") from None
