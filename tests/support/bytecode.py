"""A pytest plugin: compiled modules are stored, by this process and those that tests start.

``PYTHONDONTWRITEBYTECODE`` is usual in containers. With it, each worker compiles all tests again, and each node all of
Hearth.
"""

from __future__ import annotations

import os
import sys

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
