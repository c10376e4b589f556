"""One reader under the fuzzer, in a process of its own, which ends with the fuzzer's exit status.

``python -m fuzz.one READER [OPTION OF LIBFUZZER | FILE WITH ONE INPUT]...``
"""

from __future__ import annotations

import sys

import atheris  # only here: it has no wheel for every machine

with atheris.instrument_imports(include=["hearth"], enable_loader_override=False):
    from fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
    atheris.Fuzz()
