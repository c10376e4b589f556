"""Write docs/schemas/func.json, by which editors check and complete func.yaml, from the fields that Hearth reads."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from hearth.projects.func_file import FIELDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "schemas" / "func.json"

_TEXT = {"type": ["string", "number"]}  # scalars are taken as they are written
_TEXTS = {"type": "array", "items": _TEXT}
_FORMS: dict[str, dict[str, Any]] = {
    "whole number": {"type": "integer"},
    "mapping": {"type": "object"},
    "mapping; a value or a list of them": {"type": "object", "additionalProperties": {"anyOf": [_TEXT, _TEXTS]}},
    "list": _TEXTS,
    "list of mappings": {"type": "array", "items": {"type": "object"}},
    "list or text": {"anyOf": [_TEXT, _TEXTS]},
    "true or false; true with `retry`": {"type": "boolean"},
}


def page() -> str:
    """Return the schema as JSON. A field may also be null: func.yaml then says nothing about it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A function of Hearth: func.yaml",
        "type": "object",
        "properties": {field.name: _property(field.metadata["form"], field.metadata["meaning"]) for field in FIELDS},
    }
    return json.dumps(schema, indent=2) + "\n"


def _property(form: str, meaning: str) -> dict[str, Any]:
    described = {"description": re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", meaning).replace("`", "")}
    if re.fullmatch(r"`[\w-]+`(, `[\w-]+`)*", form):
        return {**described, "enum": [*re.findall(r"`([\w-]+)`", form), None]}
    return {**described, "anyOf": [_FORMS.get(form, _TEXT), {"type": "null"}]}


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    sys.exit(0)
