"""``python -m hearth_fdk func.py``: run a program, and serve the handler that it marked with ``@function``."""

from __future__ import annotations

import os
import sys
import types

from hearth_fdk import registry


def main() -> None:
    """Run the program of the command line; a program that serves calls by itself just runs."""
    if len(sys.argv) < 2:
        sys.exit("usage: python -m hearth_fdk func.py [argument ...]")
    del sys.argv[0]
    program = sys.argv[0]
    module = types.ModuleType("__main__")
    module.__file__ = program
    sys.path[0] = os.path.dirname(os.path.abspath(program))
    sys.modules["__main__"] = module
    try:
        with open(program, "rb") as file:
            source = file.read()
    except OSError as exc:
        sys.exit(f"{program}: {exc.strerror}; a Python function is a func.py with one handler under @function")
    try:
        exec(compile(source, program, "exec"), module.__dict__)
        handler = registry.take()
    except Exception:
        from hearth_fdk.serving import told

        sys.exit(told())
    if handler is not None:
        from hearth_fdk.serving import run  # only now: a program that serves calls by itself starts without it

        run(handler)
        return
    from hearth_fdk import checking

    if checking.defines_only(source):
        sys.exit(f"{program}: {checking.NO_HANDLER}")


main()
