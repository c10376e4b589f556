"""Runs the Python text in TEXT, which leaves what it found in ``found``; prints that as JSON."""

import json
import os

found = {}


def tried(attempt):
    """What came of it: "done", or the name of the error."""
    import errno

    try:
        attempt()
    except OSError as exc:
        return errno.errorcode.get(exc.errno, str(exc))
    return "done"


def write(path):
    with open(path, "a") as file:
        file.write("x")


exec(os.environ["TEXT"])
print(json.dumps(found))
