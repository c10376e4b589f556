"""What a start of a Python function costs is what its kit imports: nothing comes in unseen."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import hearth_fdk

#: What the kit may import before the first call, above what Python itself has at its start.
ALLOWED = {
    "ast",
    "collections",
    "contextlib",
    "copyreg",
    "dis",
    "enum",
    "functools",
    "genericpath",
    "importlib",
    "inspect",
    "itertools",
    "json",
    "keyword",
    "linecache",
    "opcode",
    "operator",
    "os",
    "posixpath",
    "re",
    "reprlib",
    "stat",
    "token",
    "tokenize",
    "types",
    "typing",
    "warnings",
}

CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import hearth_fdk
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_the_kit_imports_little() -> None:
    library = str(Path(hearth_fdk.__file__).parents[1])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", CODE, library], capture_output=True, text=True, check=True)
    public = {name for name in json.loads(done.stdout) if not name.startswith("_")}
    assert public - {"hearth_fdk"} <= ALLOWED
