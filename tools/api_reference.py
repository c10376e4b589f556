"""Write docs/api.md from the OpenAPI documents that a node serves."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hearth.server import description as v1
from hearth.server.api_v2 import description as v2

PAGE = Path(__file__).resolve().parent.parent / "docs" / "api.md"

HEAD = """# The HTTP API

<!-- Written by tools/api_reference.py; `make reference` renews it. -->

A node describes its API as OpenAPI 3.0 at `/v1/openapi.json` and `/v2/openapi.json`, and as a page at `/docs`. This
page is made of these documents. Both versions see the same apps. Clients show a token as
`Authorization: Bearer TOKEN`: [Who may use a node](access.md).

An error is `{"error": {"message": "..."}}` in version 1, `{"message": "..."}` in version 2; [all messages](errors.md).
Lists have pages: `per_page` says how long one is, and `next_cursor` of an answer is the `cursor` of the next one.

A field marked with `*` is required in a request, and always present in an answer. `read` marks fields that requests
cannot set.

Functions are called at `/r/APP/PATH`, `/invoke/FN_ID` and `/t/APP/SOURCE`: [How a call runs](calls.md).
"""
_VERSIONS = (("v1", v1.DESCRIPTION), ("v2", v2.DESCRIPTION))


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(line for name, document in _VERSIONS for line in _version(name, document))])


def _version(name: str, document: Mapping[str, Any]) -> Iterator[str]:
    yield f"## Version {name[1:]}\n"
    yield f"{document['info']['description']}\n"
    yield "| request | does | body | answer | errors |\n|---|---|---|---|---|"
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method != "parameters":
                yield _row(name, method.upper(), path, operation)
    yield f"\n### Objects of version {name[1:]}\n"
    for schema, described in document["components"]["schemas"].items():
        if described.get("properties"):
            yield from _schema(name, schema, described)


def _row(version: str, method: str, path: str, operation: Mapping[str, Any]) -> str:
    given = [f"`{one['name']}`" for one in operation.get("parameters", ()) if one["in"] == "query"]
    body = operation.get("requestBody", {}).get("content", {})
    answers = {code: one for code, one in operation["responses"].items() if code.startswith("2")}
    answer = ", ".join(f"{code} {_contents(version, one.get('content', {}))}".rstrip() for code, one in answers.items())
    failures = " ".join(code for code in operation["responses"] if code[0] in "45")
    request = f"`{method} /{version}{path}`" + (f"<br>query: {', '.join(given)}" if given else "")
    return f"| {request} | {operation['summary']} | {_contents(version, body)} | {answer} | {failures} |"


def _contents(version: str, contents: Mapping[str, Any]) -> str:
    return " or ".join(
        _type(version, content["schema"]) if kind == "application/json" else f"`{kind}`"
        for kind, content in contents.items()
    )


def _schema(version: str, name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'#### {name} {{ id="{version}-{name.lower()}" }}\n'
    yield "| field | type | meaning |\n|---|---|---|"
    for field, described in schema["properties"].items():
        mark = " *" if field in schema.get("required", ()) else ""
        notes = [described.get("description", ""), *_limits(described)]
        yield f"| `{field}`{mark} | {_type(version, described)} | {'; '.join(filter(None, notes))} |"
    yield ""


def _type(version: str, schema: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{version}-{name.lower()})"
    if schema.get("type") == "array":
        return f"list of {_type(version, schema['items'])}"
    if schema.get("type") == "object" and "properties" in schema:
        return "{" + ", ".join(f"`{name}`" for name in schema["properties"]) + "}"
    return str(schema.get("format") or schema.get("type") or "any")


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    if "enum" in schema:
        yield " ".join(f"`{value}`" if value else "`''`" for value in schema["enum"])
    if "minimum" in schema or "maximum" in schema:
        yield f"{schema.get('minimum', '')}..{schema.get('maximum', '')}"
    if "default" in schema:
        yield f"default `{schema['default']}`"
    if schema.get("readOnly"):
        yield "read"
    if schema.get("nullable"):
        yield "may be null"


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)
