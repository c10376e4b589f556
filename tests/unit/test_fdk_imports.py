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
import hearth_fdk, hearth_fdk.serving
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_the_kit_imports_little() -> None:
    library = str(Path(hearth_fdk.__file__).parents[1])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", CODE, library], capture_output=True, text=True, check=True)
    public = {name for name in json.loads(done.stdout) if not name.startswith("_")}
    assert public - {"hearth_fdk"} <= ALLOWED


def test_a_program_that_serves_calls_by_itself_pays_for_no_handler(tmp_path: Path) -> None:
    program = tmp_path / "func.py"
    program.write_text("import sys\nprint(*sorted(sys.modules))\n")
    argv: list[str | Path] = [sys.executable, "-S", "-m", "hearth_fdk", program]
    library = {"PYTHONPATH": str(Path(hearth_fdk.__file__).parents[1])}
    done = subprocess.run(argv, capture_output=True, text=True, check=True, env=library)
    loaded = set(done.stdout.split())
    assert "hearth_fdk.registry" in loaded
    assert not loaded & {"hearth_fdk.serving", "inspect", "json"}
