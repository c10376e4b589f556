"""The ``hearth`` command with all its groups."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, NoReturn

import typer

from hearth import FN_VERSION, __version__
from hearth.cli.lazy import Entry, LazyGroup, examples_text
from hearth.cli.output import note, say
from hearth.cli.session import from_options
from hearth.models.errors import HearthError
from hearth.telemetry.redaction import redact

_NODE: Final = "Nodes"
_FUNCTIONS: Final = "Functions"
_SERVER: Final = "On a server"
_VERBS: Final = "The same, verb first"

#: Typer brings its own Click, or stands on one: the class of wrong usage has no public name.
_UsageError: Final[Any] = typer.BadParameter.__base__

#: Characters of a bad value that an error shows.
_SHOWN: Final = 60


class _Hearth(LazyGroup):
    entries: ClassVar[dict[str, Entry]] = {
        "start": Entry("hearth.cli.start:start", "Run a node in the foreground.", _NODE),
        "migrate": Entry("hearth.cli.migrate:migrate", "Show, upgrade or downgrade the database schema.", _NODE),
        "prune": Entry("hearth.cli.prune:prune", "Remove old calls, logs and builds.", _NODE),
        "backup": Entry("hearth.cli.backup:backup", "Copy what a node keeps into a file.", _NODE),
        "restore": Entry("hearth.cli.backup:restore", "Restore a backup into an empty folder.", _NODE),
        "images": Entry("hearth.cli.images:images", "List and check the images of the data folder.", _NODE),
        "doctor": Entry("hearth.cli.doctor:doctor", "Check everything that a start needs.", _NODE),
        "init": Entry("hearth.cli.init:init", "Create a func.yaml and a function that answers.", _FUNCTIONS),
        "build": Entry("hearth.cli.build:build", "Build a bundle or an image from a folder.", _FUNCTIONS),
        "run": Entry("hearth.cli.run:run", "Run a function once, with stdin as its body.", _FUNCTIONS),
        "test": Entry("hearth.cli.check:check", "Run the cases of a function's test.yaml.", _FUNCTIONS),
        "dev": Entry("hearth.cli.dev:dev", "Serve a function and rebuild it after each change.", _FUNCTIONS),
        "push": Entry("hearth.cli.push:push", "Push an image to a registry.", _FUNCTIONS),
        "pull": Entry("hearth.cli.pull:pull", "Copy an image from a registry.", _FUNCTIONS),
        "bump": Entry("hearth.cli.bump:bump", "Increment the version of a function.", _FUNCTIONS),
        "deploy": Entry("hearth.cli.deploy:deploy", "Build a function and create its route.", _FUNCTIONS),
        "invoke": Entry("hearth.cli.invoke:invoke", "Call a function.", _SERVER),
        "result": Entry("hearth.cli.result:result", "Print the answer of an async call.", _SERVER),
        "apps": Entry("hearth.cli.apps:apps", "Create, list, update and delete apps.", _SERVER),
        "routes": Entry("hearth.cli.routes:routes", "Create, list, update and delete routes.", _SERVER),
        "versions": Entry("hearth.cli.versions:versions", "List the versions of a route.", _SERVER),
        "rollback": Entry("hearth.cli.versions:rollback", "Give a route the image of an earlier version.", _SERVER),
        "secrets": Entry("hearth.cli.secrets:secrets", "Store, list and remove secrets of apps.", _SERVER),
        "schedules": Entry("hearth.cli.schedules:schedules", "Call functions at certain times.", _SERVER),
        "registries": Entry(
            "hearth.cli.registries:registries", "Store, list and remove logins of apps at registries.", _SERVER
        ),
        "calls": Entry("hearth.cli.calls:calls", "Show the records of calls, cancel calls.", _SERVER),
        "dead-letters": Entry(
            "hearth.cli.dead_letters:dead_letters", "List, redrive and remove calls that failed.", _SERVER
        ),
        "logs": Entry("hearth.cli.logs:logs", "Print or follow the logs of calls.", _SERVER),
        "contexts": Entry("hearth.cli.contexts:contexts", "Manage named servers and registries.", _SERVER),
        "nodes": Entry("hearth.cli.nodes:nodes", "List the nodes of a fleet, and let one drain.", _SERVER),
        "tokens": Entry("hearth.cli.tokens:tokens", "Create, list and revoke tokens.", _SERVER),
        "login": Entry("hearth.cli.login:login", "Store the token of a server.", _SERVER),
        "logout": Entry("hearth.cli.login:logout", "Delete the stored token of a server.", _SERVER),
        "version": Entry("hearth.cli.version:version", "Print the versions of command and server.", _SERVER),
        "create": Entry("hearth.cli.verbs:create", "Create an app, a route or a context.", _VERBS),
        "list": Entry("hearth.cli.verbs:list_", "List apps, routes, calls or contexts.", _VERBS),
        "inspect": Entry("hearth.cli.verbs:inspect", "Show an app, a route, a call or a context.", _VERBS),
        "get": Entry("hearth.cli.verbs:get", "Get a call, a log or a configuration value.", _VERBS),
        "update": Entry("hearth.cli.verbs:update", "Update an app, a route or the current context.", _VERBS),
        "delete": Entry("hearth.cli.verbs:delete", "Delete an app, a route or a context.", _VERBS),
        "use": Entry("hearth.cli.verbs:use", "Use a context.", _VERBS),
        "unset": Entry("hearth.cli.verbs:unset", "Unset the current context or a configuration value.", _VERBS),
        "config": Entry("hearth.cli.verbs:config", "Set a configuration value.", _VERBS),
    }
    _ALIASES: ClassVar[dict[str, str]] = {
        "call": "invoke",
        "iv": "invoke",
        "app": "apps",
        "a": "apps",
        "route": "routes",
        "r": "routes",
        "context": "contexts",
        "ctx": "contexts",
        "c": "create",
        "ls": "list",
        "i": "inspect",
        "g": "get",
        "up": "update",
        "d": "delete",
        "u": "use",
        "un": "unset",
        "cf": "config",
        "bu": "build",
        "bm": "bump",
        "p": "push",
        "dp": "deploy",
        "in": "init",
    }

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return super().get_command(ctx, self._ALIASES.get(cmd_name, cmd_name))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = self._ALIASES.get(args[0], args[0])
        runs_node = name in self.entries and self.entries[name].panel in (_NODE, _FUNCTIONS)
        if runs_node and not ctx.resilient_parsing:
            _open_logs(ctx)
        found = super().resolve_command(ctx, [name, *args[1:]])
        _let_collect()
        return found


app = typer.Typer(
    cls=_Hearth,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=examples_text(
        [
            "hearth start",
            "hearth init hello",
            "hearth deploy --app demo -w hello",
            "hearth invoke demo /hello",
        ]
    ),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"hearth {__version__} (speaks Fn {FN_VERSION})")
        raise typer.Exit


@app.callback()
def hearth(
    ctx: typer.Context,
    context: Annotated[
        str, typer.Option(envvar="FN_CONTEXT", help="Context to use (default: the current one).", show_default=False)
    ] = "",
    api_url: Annotated[
        str,
        typer.Option(
            envvar="FN_API_URL", help="Server URL, or unix:/path (default: from the context).", show_default=False
        ),
    ] = "",
    registry: Annotated[
        str,
        typer.Option(envvar="FN_REGISTRY", help="Registry for images (default: from the context).", show_default=False),
    ] = "",
    token: Annotated[str, typer.Option(envvar="FN_TOKEN", help="Bearer token for the API.", show_default=False)] = "",
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="FN_TLS_CA",
            help="Authorities to trust, in PEM (default: the usual ones).",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(envvar="FN_TLS_CLIENT_CERT", help="Certificate to show, in PEM.", show_default=False),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(envvar="FN_TLS_CLIENT_KEY", help="Private key of --tls-cert, in PEM.", show_default=False),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Verbose output.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run functions that live in containers."""
    ctx.obj = from_options(**ctx.params)
    ctx.call_on_close(ctx.obj.close)


def main() -> None:
    """Run the command as this process."""
    gc.disable()  # while the command is imported: that makes many objects, and next to no garbage
    run()


def run() -> None:
    """Run the command; an error is one line on stderr, with exit status 1, or 2 if the command is misused."""
    try:
        status = app(prog_name="hearth", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except HearthError as exc:
        _fail(str(exc), 1)
    except _UsageError as exc:
        _fail(_usage(exc), 2)
    except typer.Abort:
        _fail("canceled", 1)
    except KeyboardInterrupt:  # before the node takes the signals itself
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        _fail("", 1)
    except UnicodeEncodeError as exc:  # bytes of the command line that the server cannot be sent
        _fail(f"{exc.object[:_SHOWN]!r}: must be valid UTF-8", 1)
    except OSError as exc:
        place = exc.filename if exc.filename is not None else "stdout" if _is_broken(sys.stdout) else ""
        _fail(f"{place}: {exc.strerror or exc}" if place else f"{exc.strerror or exc}", 1)
    sys.exit(status if isinstance(status, int) else 0)


def _let_collect() -> None:
    """Have the collector work, and never look at what was imported: that stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _usage(exc: Any) -> str:
    message = str(exc.format_message()).rstrip(".")
    if options := getattr(exc, "possibilities", None):  # nearest first
        message = f"{exc.message}. Did you mean {options[0]}?"
    if not message or exc.ctx is None:
        return message  # a group without a command has shown its help
    see = f"{exc.ctx.command_path} --help"
    return f"{message} See {see}" if message.endswith("?") else f"{message}; see {see}"


def _fail(text: str, status: int) -> NoReturn:
    if text:
        with contextlib.suppress(OSError):  # stderr is broken as well
            note(redact(f"hearth: {text}"))
    if _is_broken(sys.stdout):
        sys.stdout = None  # the interpreter would flush it once more at its end, and print a traceback
    sys.exit(status)


def _is_broken(stream: Any) -> bool:
    """Return whether a stream cannot be written to."""
    try:
        stream.flush()
    except (OSError, ValueError, AttributeError):
        return True
    return False


def _open_logs(ctx: Any) -> None:
    """Give every line of a node the same form, from the first until the command ends."""
    from hearth.telemetry import logs

    logs.configure()
    ctx.call_on_close(logs.reset)
