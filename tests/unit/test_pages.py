"""Pages of the documentation: promises about security name tests that exist, and every page can be found."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
SECURITY: Final = (DOCS / "security.md").read_text()
#: Pages whose tables name the tests of what they promise.
SHOWN: Final = {"security": SECURITY, "contract": (DOCS / "contract.md").read_text()}
#: A test as a page names it: its file, and the function in it if one is meant.
REFERENCE: Final = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")

#: Where the comparison says what Hearth does, and the tests that show it.
COMPARED: Final = {
    "needs": ("e2e/test_doctor.py", "test_without_docker_processes_will_do"),
    "a function is": ("e2e/test_cli_deploy.py", "test_a_program_becomes_an_image"),
    "calls reach it by": ("e2e/test_invocation.py", "test_a_functions_status_and_headers_reach_the_client"),
    "calls at once in a container": (
        "e2e/test_shared_calls.py",
        "test_calls_at_once_share_a_process_up_to_the_limit",
        "test_a_format_on_pipes_refuses_several_calls_at_once",
    ),
    "async calls": ("e2e/test_async.py", "test_an_async_call_is_accepted_then_runs"),
    "records of calls, by API": ("e2e/test_cli_server.py", "test_calls_and_logs"),
    "streams answers": (
        "e2e/test_streamed_answers.py",
        "test_pieces_arrive_while_more_are_made_and_a_client_that_leaves_stops_them",
    ),
    "event sources besides HTTP": (
        "integration/test_schedules_of_nodes.py",
        "test_a_week_over_a_change_of_clocks_on_two_nodes_that_die",
    ),
    "Delivery": ("e2e/test_retries_of_calls.py", "test_calls_of_routes_without_a_policy_show_nothing_of_attempts"),
}
#: What it says Hearth lacks, and words that need no test.
UNTESTED: Final = {
    "license",
    *("Scale", "Maturity", "Isolation", "Concurrency", "Languages", "Events", "Throughput"),
}


def _tests_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("file", "name"), sorted({one for page in SHOWN.values() for one in REFERENCE.findall(page)}))
def test_a_test_that_a_page_names_exists(file: str, name: str) -> None:
    assert not name or name in _tests_of(file)


def test_each_statement_of_the_comparison_has_a_test() -> None:
    page = (DOCS / "comparison.md").read_text()
    rows = re.findall(r"^\| ([a-z][^|]+) \|", page, re.MULTILINE)
    weaknesses = re.findall(r"^\* \*\*(\w+)\.\*\*", page, re.MULTILINE)
    assert {*rows, *weaknesses} == COMPARED.keys() | UNTESTED
    for file, *names in COMPARED.values():
        assert set(names) <= _tests_of(f"tests/{file}")


def test_sections_that_messages_name_exist() -> None:
    """``see 'A node in a container' in docs/security.md``."""
    found = [
        (path.name, heading, page)
        for path in (ROOT / "src").rglob("*.py")
        for heading, page in re.findall(r"'([^'\n]+)' in (docs/[\w/-]+\.md)", path.read_text())
    ]
    assert found
    missing = [one for one in found if not re.search(rf"^#+ {re.escape(one[1])}$", (ROOT / one[2]).read_text(), re.M)]
    assert missing == []


@pytest.mark.parametrize(("page", "at_least"), [("security", 40), ("contract", 35)])
def test_every_promise_of_a_page_names_a_test(page: str, at_least: int) -> None:
    tables = r"^\| (?:promise|rule) \| shown by \|\n\|---\|---\|\n((?:\|.*\n)+)"
    promises = [line for table in re.findall(tables, SHOWN[page], re.MULTILINE) for line in table.splitlines()]
    assert len(promises) >= at_least
    assert [line for line in promises if not REFERENCE.search(line.split(" | ")[-1])] == []


@pytest.mark.parametrize("page", SHOWN)
def test_every_mention_of_a_test_has_the_form_that_is_checked(page: str) -> None:
    assert len(re.findall(r"\btests/", SHOWN[page])) == len(REFERENCE.findall(SHOWN[page]))


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_decisions_have_numbers_of_their_own_and_say_them() -> None:
    pages = sorted((DOCS / "adr").glob("*.md"))
    numbers = Counter(page.name[:4] for page in pages)
    assert [number for number, count in numbers.items() if count > 1] == []
    assert [page.name for page in pages if not page.read_text().startswith(f"# {int(page.name[:4])}. ")] == []
