"""The action of each entry point of the server, and the principals that may do it.

The first rule that matches a request decides. A request without a rule is :attr:`Action.UNKNOWN`, which only
administrators may do, so an entry point that was forgotten here is closed, not open.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final

from hearth.models.errors import AppsNotFound, Forbidden, RunnerUnknown, Unauthenticated
from hearth.models.principal import Principal, Role


class Action(enum.StrEnum):
    """The action of a request. Errors show the value."""

    PROBE = "system:probe"  # version and readiness, without details
    CALL = "functions:call"  # a request to a function: its route decides what the caller must show
    INVOKE = "functions:invoke"  # call a function whose route asks for a token
    SYSTEM_READ = "system:read"  # metrics, counts, nodes, details of version and readiness
    SYSTEM_STOP = "system:stop"  # a node, or let it drain
    DOCS_READ = "docs:read"
    DASHBOARD_OPEN = "dashboard:open"  # its page and files, which show nothing, and the login
    DASHBOARD_READ = "dashboard:read"  # numbers of what the principal may see otherwise, too
    DASHBOARD_CALL = "dashboard:call"  # call a function from its page
    APPS_READ = "apps:read"
    APPS_WRITE = "apps:write"
    CONFIG_READ = "config:read"  # the values of the configuration of apps, routes and fns
    QUOTAS_WRITE = "quotas:write"  # of any app: the quotas of one are what others can count on
    ROUTES_READ = "routes:read"
    ROUTES_WRITE = "routes:write"
    FNS_READ = "fns:read"  # fns and triggers
    FNS_WRITE = "fns:write"
    IMAGES_READ = "images:read"
    IMAGES_WRITE = "images:write"  # a pushed image is code that an app may run
    CALLS_READ = "calls:read"
    CALLS_WRITE = "calls:write"  # end calls that others made, run or remove those that failed
    DEAD_LETTERS_READ = "dead_letters:read"  # with the payloads and headers of callers
    TOKENS_READ = "tokens:read"
    TOKENS_WRITE = "tokens:write"
    AUDIT_READ = "audit:read"
    SECRETS_READ = "secrets:read"  # names, never values
    SECRETS_WRITE = "secrets:write"
    SCHEDULES_READ = "schedules:read"
    SCHEDULES_WRITE = "schedules:write"  # a schedule calls functions of its own app only
    RUNNER_WORK = "runner:work"
    EXTENSION = "extensions:use"
    EXTENSION_PUBLIC = "extensions:use-public"
    UNKNOWN = "unknown"


#: Actions that need no token in any mode.
OPEN: Final = frozenset({Action.PROBE, Action.CALL, Action.DASHBOARD_OPEN, Action.EXTENSION_PUBLIC})

_ALL_BUT_RUNNERS: Final = frozenset(Action) - {Action.RUNNER_WORK}
#: A program on this machine is no caller with a token: it may stand for strangers, as a reverse proxy does.
_OF_THIS_MACHINE: Final = _ALL_BUT_RUNNERS - {Action.INVOKE}
_DEFINITIONS: Final = frozenset({Action.APPS_READ, Action.ROUTES_READ, Action.FNS_READ})
GRANTS: Final[Mapping[Role, frozenset[Action]]] = {
    Role.ANONYMOUS: OPEN,
    Role.LOCAL: _OF_THIS_MACHINE,
    Role.ADMIN: _ALL_BUT_RUNNERS,
    Role.DEPLOYER: OPEN
    | _DEFINITIONS
    | {Action.APPS_WRITE, Action.ROUTES_WRITE, Action.FNS_WRITE, Action.CONFIG_READ, Action.DOCS_READ}
    | {Action.IMAGES_READ, Action.IMAGES_WRITE, Action.CALLS_WRITE, Action.DEAD_LETTERS_READ}
    | {Action.SCHEDULES_READ, Action.SCHEDULES_WRITE}
    | {Action.SECRETS_READ, Action.SECRETS_WRITE, Action.INVOKE, Action.DASHBOARD_READ, Action.DASHBOARD_CALL},
    Role.INVOKER: OPEN
    | {Action.INVOKE, Action.CALLS_READ, Action.DOCS_READ, Action.DASHBOARD_READ, Action.DASHBOARD_CALL},
    Role.VIEWER: OPEN
    | _DEFINITIONS
    | {Action.CALLS_READ, Action.SECRETS_READ, Action.SYSTEM_READ, Action.DOCS_READ, Action.DASHBOARD_READ}
    | {Action.SCHEDULES_READ},
    Role.RUNNER: OPEN | _DEFINITIONS | {Action.RUNNER_WORK, Action.CONFIG_READ},
}
#: Actions that concern no app, several, or one that the path does not name: their handlers keep to the apps that the
#: principal reaches. All others that concern no app are of the whole node, and for principals that reach all apps.
_SCOPED_BY_HANDLER: Final = OPEN | {
    *(Action.DOCS_READ, Action.APPS_READ, Action.APPS_WRITE, Action.DASHBOARD_READ, Action.DASHBOARD_CALL),
    *(Action.FNS_READ, Action.FNS_WRITE, Action.CALLS_READ, Action.CALLS_WRITE),  # of API v2, whose paths have ids
    *(Action.TOKENS_READ, Action.TOKENS_WRITE, Action.AUDIT_READ),
    Action.IMAGES_READ,  # without an app: whether this is a registry
}


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """An entry point: methods and a path.

    In the pattern ``:app`` is one segment, the resource of the request, ``:`` any other segment, and ``*`` at the end
    the rest of the path, also an empty one. Without methods the rule holds for all.
    """

    methods: frozenset[str]
    pattern: tuple[str, ...]
    action: Action

    def matches(self, method: str, parts: list[str]) -> bool:
        """Return whether a request matches."""
        if self.methods and method not in self.methods:
            return False
        if self.pattern[-1] == "*":
            fixed = self.pattern[:-1]
            if len(parts) <= len(fixed):
                return False
        elif len(parts) != len(fixed := self.pattern):
            return False
        return all(expected.startswith(":") or expected == part for expected, part in zip(fixed, parts, strict=False))


def _rule(methods: str, path: str, action: Action) -> Rule:
    return Rule(frozenset(methods.split()), tuple(path.split("/")[1:]), action)


RULES: Final = (
    _rule("", "/r/*", Action.CALL),
    _rule("GET", "/", Action.PROBE),
    _rule("GET", "/version", Action.PROBE),
    _rule("GET", "/healthz", Action.PROBE),
    _rule("GET", "/readyz", Action.PROBE),
    _rule("GET", "/stats", Action.SYSTEM_READ),
    _rule("GET", "/metrics", Action.SYSTEM_READ),
    _rule("GET", "/shutdown", Action.SYSTEM_STOP),
    _rule("GET", "/docs", Action.DOCS_READ),
    _rule("GET", "/v1/openapi.json", Action.DOCS_READ),
    _rule("", "/v1/runner/*", Action.RUNNER_WORK),
    _rule("GET", "/v1/tokens", Action.TOKENS_READ),
    _rule("POST", "/v1/tokens", Action.TOKENS_WRITE),
    _rule("DELETE", "/v1/tokens/:", Action.TOKENS_WRITE),
    _rule("GET", "/v1/audit", Action.AUDIT_READ),
    _rule("GET", "/v1/nodes", Action.SYSTEM_READ),
    _rule("POST", "/v1/nodes/:/drain", Action.SYSTEM_STOP),
    _rule("GET", "/v1/apps", Action.APPS_READ),
    _rule("POST", "/v1/apps", Action.APPS_WRITE),
    _rule("GET", "/v1/apps/:app", Action.APPS_READ),
    _rule("PATCH DELETE", "/v1/apps/:app", Action.APPS_WRITE),
    _rule("GET", "/v1/apps/:app/routes", Action.ROUTES_READ),
    _rule("POST", "/v1/apps/:app/routes", Action.ROUTES_WRITE),
    _rule("GET", "/v1/apps/:app/routes/*", Action.ROUTES_READ),
    _rule("PUT PATCH DELETE", "/v1/apps/:app/routes/*", Action.ROUTES_WRITE),
    _rule("GET", "/v1/apps/:app/versions", Action.ROUTES_READ),
    _rule("GET", "/v1/apps/:app/secrets", Action.SECRETS_READ),
    _rule("PUT DELETE", "/v1/apps/:app/secrets/:", Action.SECRETS_WRITE),
    _rule("GET", "/v1/apps/:app/registries", Action.SECRETS_READ),
    _rule("PUT DELETE", "/v1/apps/:app/registries/:", Action.SECRETS_WRITE),
    _rule("GET", "/v1/apps/:app/schedules", Action.SCHEDULES_READ),
    _rule("POST", "/v1/apps/:app/schedules", Action.SCHEDULES_WRITE),
    _rule("GET", "/v1/apps/:app/schedules/:", Action.SCHEDULES_READ),
    _rule("PUT DELETE", "/v1/apps/:app/schedules/:", Action.SCHEDULES_WRITE),
    _rule("POST", "/v1/apps/:app/schedules/:/run", Action.SCHEDULES_WRITE),
    _rule("GET", "/v1/apps/:app/calls", Action.CALLS_READ),
    _rule("GET", "/v1/apps/:app/calls/:", Action.CALLS_READ),
    _rule("GET", "/v1/apps/:app/calls/:/log", Action.CALLS_READ),
    _rule("GET", "/v1/apps/:app/calls/:/result", Action.CALLS_READ),
    _rule("POST", "/v1/apps/:app/calls/:/cancel", Action.CALLS_WRITE),
    _rule("GET", "/v1/apps/:app/dead-letters", Action.DEAD_LETTERS_READ),
    _rule("DELETE", "/v1/apps/:app/dead-letters", Action.CALLS_WRITE),
    _rule("POST", "/v1/apps/:app/dead-letters/redrive", Action.CALLS_WRITE),
    _rule("GET", "/v1/apps/:app/dead-letters/:", Action.DEAD_LETTERS_READ),
    _rule("DELETE", "/v1/apps/:app/dead-letters/:", Action.CALLS_WRITE),
    _rule("GET", "/v1/apps/:app/dead-letters/:/payload", Action.DEAD_LETTERS_READ),
    _rule("POST", "/v1/apps/:app/dead-letters/:/redrive", Action.CALLS_WRITE),
    _rule("", "/invoke/*", Action.CALL),
    _rule("", "/t/*", Action.CALL),
    _rule("GET", "/v2/openapi.json", Action.DOCS_READ),
    _rule("GET", "/v2/apps", Action.APPS_READ),
    _rule("POST", "/v2/apps", Action.APPS_WRITE),
    _rule("GET", "/v2/apps/:", Action.APPS_READ),
    _rule("PUT DELETE", "/v2/apps/:", Action.APPS_WRITE),
    _rule("GET", "/v2/fns", Action.FNS_READ),
    _rule("POST", "/v2/fns", Action.FNS_WRITE),
    _rule("GET", "/v2/fns/:", Action.FNS_READ),
    _rule("PUT DELETE", "/v2/fns/:", Action.FNS_WRITE),
    _rule("GET", "/v2/fns/:/calls", Action.CALLS_READ),
    _rule("GET", "/v2/fns/:/calls/:", Action.CALLS_READ),
    _rule("GET", "/v2/fns/:/calls/:/log", Action.CALLS_READ),
    _rule("GET", "/v2/fns/:/calls/:/result", Action.CALLS_READ),
    _rule("POST", "/v2/fns/:/calls/:/cancel", Action.CALLS_WRITE),
    _rule("GET", "/v2/triggers", Action.FNS_READ),
    _rule("POST", "/v2/triggers", Action.FNS_WRITE),
    _rule("GET", "/v2/triggers/:", Action.FNS_READ),
    _rule("PUT DELETE", "/v2/triggers/:", Action.FNS_WRITE),
    _rule("GET", "/v2/runner/apps/:/triggerBySource/:/*", Action.FNS_READ),
    _rule("GET", "/ui/", Action.DASHBOARD_OPEN),
    _rule("GET", "/ui/static/*", Action.DASHBOARD_OPEN),
    _rule("POST", "/ui/login", Action.DASHBOARD_OPEN),
    _rule("POST", "/ui/logout", Action.DASHBOARD_OPEN),
    _rule("GET", "/ui/data/calls", Action.CALLS_READ),
    _rule("GET", "/ui/data/async", Action.CALLS_READ),
    _rule("GET", "/ui/data/me", Action.DASHBOARD_READ),
    _rule("GET", "/ui/data/history", Action.DASHBOARD_READ),
    _rule("GET", "/ui/data/activity", Action.DASHBOARD_READ),
    _rule("GET", "/ui/data/busiest", Action.DASHBOARD_READ),
    _rule("GET", "/ui/data/live", Action.DASHBOARD_READ),
    _rule("", "/ui/call/*", Action.DASHBOARD_CALL),
    *(_rule("", f"/v2/{kind}/*", Action.UNKNOWN) for kind in ("apps", "fns", "triggers", "runner")),
    _rule("GET HEAD", "/v2/", Action.IMAGES_READ),
    _rule("GET HEAD", "/v2/:app/*", Action.IMAGES_READ),
    _rule("POST PUT PATCH DELETE", "/v2/:app/*", Action.IMAGES_WRITE),
)


def entry_point(method: str, path: str) -> tuple[Action, str]:
    """Return the action of a request, and the app that it concerns (empty: none)."""
    parts = path.split("/")[1:]
    for rule in RULES:
        if rule.matches(method, parts):
            app = parts[rule.pattern.index(":app")] if ":app" in rule.pattern else ""
            return rule.action, app
    return Action.UNKNOWN, ""


def authorize(principal: Principal, action: Action, resource: str = "") -> None:
    """Check that a principal may do an action.

    Args:
        principal: The sender of the request.
        action: The action of the request.
        resource: The app concerned; empty where the action concerns the node, or several apps.

    Raises:
        Unauthenticated: A token is needed.
        RunnerUnknown: A runner's token is needed.
        AppsNotFound: The principal does not reach the app, and so does not learn whether it exists.
        Forbidden: The principal's role does not have this action, or it would reach further than the principal's apps.
    """
    if resource and action not in OPEN and not principal.reaches(resource):
        if action is Action.INVOKE:  # every caller sees that the function exists
            raise Forbidden(principal.role, action, principal.apps)
        raise AppsNotFound
    if action not in GRANTS[principal.role]:
        if principal.role in (Role.ANONYMOUS, Role.LOCAL):
            raise RunnerUnknown if action is Action.RUNNER_WORK else Unauthenticated
        raise Forbidden(principal.role, action)
    if principal.apps and not resource and action not in _SCOPED_BY_HANDLER:
        raise Forbidden(principal.role, action, principal.apps)


def is_allowed(principal: Principal, action: Action, resource: str = "") -> bool:
    """Return whether a principal may do an action; see :func:`authorize`."""
    try:
        authorize(principal, action, resource)
    except (Unauthenticated, RunnerUnknown, AppsNotFound, Forbidden):
        return False
    return True
