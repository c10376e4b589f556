"""The published description holds for the server that serves it."""

from __future__ import annotations

import tempfile

import hypothesis
import schemathesis
from schemathesis import checks

from hearth.clock import SystemClock
from hearth.datastore.sql import open_datastore
from hearth.server.api import Api
from hearth.server.description import DESCRIPTION

schema = schemathesis.openapi.from_dict(DESCRIPTION)


class LazyApi:
    """An empty database for every request: the loops that call it come and go."""

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        if scope["type"] != "http":
            return
        with tempfile.TemporaryDirectory() as folder:
            datastore = await open_datastore(f"sqlite3://{folder}/fn.db")
            try:
                await Api(datastore, SystemClock(), dict)(scope, receive, send)
            finally:
                await datastore.close()


schema.app = LazyApi()


@schema.parametrize()
@hypothesis.settings(
    max_examples=15, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True
)
def test_no_input_breaks_the_server_or_the_description(case) -> None:  # type: ignore[no-untyped-def]
    response = case.call()
    case.validate_response(response, checks=[checks.not_a_server_error])
