"""Greet the person named in the request body: {"name": "Ada"}."""

import json
import sys


def answer(call):
    """The answer to one call."""
    body = json.loads(call["body"]) if call["body"] else {}
    greeting = {"message": f"Hello {body.get('name', 'World')}"}
    return {"body": json.dumps(greeting), "content_type": "application/json", "protocol": {"status_code": 200}}


def calls(stream):
    """The calls, one JSON object after another, as they arrive."""
    lines = []
    for line in stream:
        if line.strip():
            lines.append(line)
        elif lines:  # an empty line ends an object
            yield json.loads("".join(lines))
            lines.clear()


for call in calls(sys.stdin):
    print(json.dumps(answer(call)), flush=True)
