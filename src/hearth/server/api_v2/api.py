"""The paths of API v2, and the handlers of their requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hearth.aio.clock import Clock
from hearth.models.errors import PathNotFound
from hearth.models.fn_errors import MethodNotAllowed
from hearth.models.log_reader import LogReader
from hearth.server.api_v1.versions import Versions
from hearth.server.api_v2.apps import Apps
from hearth.server.api_v2.calls import Calls
from hearth.server.api_v2.fns import Fns
from hearth.server.api_v2.request import FnRequest
from hearth.server.api_v2.scope import AppChanged, Scope
from hearth.server.api_v2.triggers import Triggers
from hearth.server.cancels import Cancels
from hearth.server.listeners import ListenedApps
from hearth.server.results import Results
from hearth.stores.datastore import Datastore

Handler = Callable[[FnRequest], Awaitable["dict[str, Any] | Response"]]
Table = dict[str, Handler]


class ApiV2:
    """The handlers of API v2.

    Args:
        datastore: Where all is.
        apps: The apps, with those who listen to their changes.
        next_id: Returns a new id.
        changed: Called with the name of an app when it, or something of it, was changed or removed.
        get_log: Opens the log of an app's call.
        max_memory_mib: The most memory that a fn may ask for.
        versions: Notes each deploy.
        results: Answers requests for results.
        cancels: Cancels calls.
        public_url: The beginning of the addresses at which clients call functions; empty for that of each request.
    """

    def __init__(
        self,
        datastore: Datastore,
        apps: ListenedApps,
        clock: Clock,
        next_id: Callable[[], str],
        changed: AppChanged,
        get_log: Callable[[str, str], Awaitable[LogReader]],
        max_memory_mib: int,
        versions: Versions,
        results: Results,
        cancels: Cancels,
        public_url: str = "",
    ) -> None:
        scope = Scope(datastore)
        of_apps = Apps(apps, scope, clock, next_id, changed)
        fns = Fns(datastore, scope, clock, next_id, changed, max_memory_mib, versions)
        triggers = Triggers(datastore, scope, clock, next_id, changed)
        calls = Calls(datastore, scope, results, get_log, cancels)
        self._public_url = public_url.removesuffix("/")
        self._lists: dict[str, Table] = {
            "apps": {"GET": of_apps.list, "POST": of_apps.create},
            "fns": {"GET": fns.list, "POST": fns.create},
            "triggers": {"GET": triggers.list, "POST": triggers.create},
        }
        self._items: dict[str, Table] = {
            "apps": {"GET": of_apps.get, "PUT": of_apps.update, "DELETE": of_apps.remove},
            "fns": {"GET": fns.get, "PUT": fns.update, "DELETE": fns.remove},
            "triggers": {"GET": triggers.get, "PUT": triggers.update, "DELETE": triggers.remove},
        }
        self._of_calls: Table = {"GET": calls.list}
        self._of_call: Table = {"GET": calls.get}
        self._of_log: Table = {"GET": calls.log}
        self._of_result: Table = {"GET": calls.result}
        self._of_cancel: Table = {"POST": calls.cancel}
        self._of_source: Table = {"GET": triggers.by_source}

    def find(self, request: Request, path: str) -> tuple[Handler, FnRequest]:
        """Return the handler of a path under /v2.

        Raises:
            PathNotFound: There is no such path.
            MethodNotAllowed: The path takes other methods.
        """
        table, names = self._match(path)
        if table is None:
            raise PathNotFound.of(f"{request.method} {path}")
        if (handler := table.get(request.method)) is None:
            raise MethodNotAllowed(request.method, path)
        return handler, FnRequest(request, base=self._base(request), **names)

    def knows(self, path: str) -> bool:
        """Return whether a path is served, with whatever method."""
        return self._match(path)[0] is not None

    def entry_points(self) -> Iterator[tuple[str, str]]:
        """Yield the method and the path of all that is served."""
        tables = {
            **{f"/v2/{kind}": table for kind, table in self._lists.items()},
            **{f"/v2/{kind}/:id": table for kind, table in self._items.items()},
            "/v2/fns/:id/calls": self._of_calls,
            "/v2/fns/:id/calls/:call": self._of_call,
            "/v2/fns/:id/calls/:call/log": self._of_log,
            "/v2/fns/:id/calls/:call/result": self._of_result,
            "/v2/fns/:id/calls/:call/cancel": self._of_cancel,
            "/v2/runner/apps/:id/triggerBySource/:type/:source": self._of_source,
        }
        for path, table in tables.items():
            for method in table:
                yield method, path

    def _match(self, path: str) -> tuple[Table | None, dict[str, Any]]:
        match path.split("/")[2:]:
            case [kind]:
                return self._lists.get(kind), {}
            case [kind, name] if name:
                return self._items.get(kind), {"id": name}
            case ["fns", name, "calls"] if name:
                return self._of_calls, {"id": name}
            case ["fns", name, "calls", call] if name and call:
                return self._of_call, {"id": name, "call": call}
            case ["fns", name, "calls", call, "log"] if name and call:
                return self._of_log, {"id": name, "call": call}
            case ["fns", name, "calls", call, "result"] if name and call:
                return self._of_result, {"id": name, "call": call}
            case ["fns", name, "calls", call, "cancel"] if name and call:
                return self._of_cancel, {"id": name, "call": call}
            case ["runner", "apps", name, "triggerBySource", kind, *source] if name and kind and source:
                return self._of_source, {"id": name, "source": (kind, "/".join(source))}
        return None, {}

    def _base(self, request: Request) -> str:
        if self._public_url:
            return self._public_url
        return f"{request.scope['scheme']}://{request.headers.get('host', '')}"
