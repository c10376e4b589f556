"""Check the language of Hearth's texts: docstrings, comments, messages, help and documentation.

``python tools/prose.py [FILE ...]`` prints one line per finding and exits with 1 if there are any. Without arguments
it reads ``src``, ``docs`` (but not the decision records), README, CHANGELOG and CONTRIBUTING.

Ruff's D401 checks that docstrings of functions are imperative; this checks words.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
TEXTS: Final = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")

#: Words and phrases that a reader has to translate, and what to write instead.
INSTEAD: Final = {
    r"of (no |any |some )?use": "useful, useless, pointless",
    r"(can|could|may|to|cannot) be had": "available",
    r"for good": "permanently",
    r"anew": "again",
    r"by then": "at that time",
    r"so long": "this long, meanwhile",
    r"begun": "started",
    r"heed(s|ed)?": "follow, respect",
    r"astray": "lost",
    r"of late": "recently",
    r"whatever it is": "(leave it out)",
    r"none of (ours|theirs|its)": "name the thing",
    r"told( of)?": "reported, logged, raised, notified",
    r"in vain": "without success",
    r"whoever": "the caller, the user",
    r"it is none": "is not a ...",
    r"by and by": "later",
    r"an own": "its own, your own",
    r"thereof|therein|hereby|herein|whereof|wherein": "(plain words)",
    r"shall": "must, will",
    r"albeit|hence": "before, so that, although, so",
}
#: Docstrings say what a function does, or name what a class or module is: these openings do neither.
OPENINGS: Final = re.compile(r"(What|Whether|Who|Where|How|That|Nothing|None|Nobody|It|They|So)\b(?! \w+\()")
_CODE: Final = re.compile(r"``[^`]*``|`[^`]*`|:\w+:`[^`]*`|https?://\S+")
_WORDS: Final = {re.compile(rf"(?<![\w-]){phrase}(?![\w-])", re.IGNORECASE): why for phrase, why in INSTEAD.items()}


class Finding(NamedTuple):
    """A place in a text that needs other words."""

    line: int
    text: str
    advice: str


def of_python(source: str) -> Iterator[Finding]:
    """Yield the findings in docstrings, other string literals and comments of a module."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            doc = ast.get_docstring(node) or ""
            if opening := OPENINGS.match(doc):
                place = 1 if isinstance(node, ast.Module) else node.lineno
                yield Finding(place, doc.splitlines()[0], f"docstring opens with {opening[0]!r}: use a verb or a noun")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for number, line in enumerate(node.value.splitlines()):
                yield from _of_line(node.lineno + number, line)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield from _of_line(token.start[0], token.string)


def of_markdown(source: str) -> Iterator[Finding]:
    """Yield the findings in the prose of a page: not in its code."""
    fenced = False
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            yield from _of_line(number, line)


def of_file(path: Path) -> list[Finding]:
    """Return the findings in a file, in the order of its lines."""
    check = of_python if path.suffix == ".py" else of_markdown
    return sorted(set(check(path.read_text())))


def texts() -> list[Path]:
    """Return the files whose language is checked."""
    pages = [page for page in (ROOT / "docs").rglob("*.md") if "adr" not in page.parts]
    return sorted([*(ROOT / "src").rglob("*.py"), *pages, *(ROOT / name for name in TEXTS)])


def _of_line(number: int, line: str) -> Iterator[Finding]:
    prose = _CODE.sub("", line)
    for pattern, advice in _WORDS.items():
        if found := pattern.search(prose):
            yield Finding(number, line.strip(), f"{found[0]!r}: write {advice}")


def main(arguments: list[str]) -> int:
    """Print the findings; return the exit status."""
    failed = False
    for path in [Path(name) for name in arguments] or texts():
        for finding in of_file(path):
            failed = True
            print(f"{path}:{finding.line}: {finding.advice}\n    {finding.text[:110]}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
