"""The command's groups, put together."""

from __future__ import annotations

import gc
import sys
from typing import Annotated, Any, ClassVar, Final

import typer

from hearth import FN_VERSION, __version__
from hearth.cli.lazy import Entry, LazyGroup
from hearth.cli.session import Session
from hearth.models.errors import HearthError
from hearth.telemetry.redaction import redact

_NODE: Final = "Nodes"
_FUNCTIONS: Final = "Functions"
_SERVER: Final = "On a server"
_VERBS: Final = "The same, verb first"

#: Typer brings its own Click, or stands on one: the class of wrong usage has no public name.
_UsageError: Final[Any] = typer.BadParameter.__base__


class _Hearth(LazyGroup):
    entries: ClassVar[dict[str, Entry]] = {
        "start": Entry("hearth.cli.start:start", "Run a node in the foreground.", _NODE),
        "migrate": Entry("hearth.cli.migrate:migrate", "Look at, raise or take back the database's schema.", _NODE),
        "doctor": Entry("hearth.cli.doctor:doctor", "Look at everything that a start needs.", _NODE),
        "init": Entry("hearth.cli.init:init", "Write a func.yaml and a function that answers.", _FUNCTIONS),
        "build": Entry("hearth.cli.build:build", "Make a bundle or an image of a folder.", _FUNCTIONS),
        "run": Entry("hearth.cli.run:run", "Run a function once, with stdin as its body.", _FUNCTIONS),
        "test": Entry("hearth.cli.check:check", "Run the cases of a function's test.yaml.", _FUNCTIONS),
        "dev": Entry("hearth.cli.dev:dev", "Serve a function, and again after each change.", _FUNCTIONS),
        "push": Entry("hearth.cli.push:push", "Push a function's image to its registry.", _FUNCTIONS),
        "bump": Entry("hearth.cli.bump:bump", "Raise a function's version.", _FUNCTIONS),
        "deploy": Entry("hearth.cli.deploy:deploy", "Build a function and give it a route.", _FUNCTIONS),
        "invoke": Entry("hearth.cli.invoke:invoke", "Call a function.", _SERVER),
        "apps": Entry("hearth.cli.apps:apps", "Make, list, change and delete apps.", _SERVER),
        "routes": Entry("hearth.cli.routes:routes", "Make, list, change and delete routes.", _SERVER),
        "calls": Entry("hearth.cli.calls:calls", "Look at the records of calls.", _SERVER),
        "logs": Entry("hearth.cli.logs:logs", "Read what functions wrote, or follow it.", _SERVER),
        "contexts": Entry("hearth.cli.contexts:contexts", "Servers and registries by name.", _SERVER),
        "version": Entry("hearth.cli.version:version", "Print the versions of command and server.", _SERVER),
        "create": Entry("hearth.cli.verbs:create", "Make an app, a route or a context.", _VERBS),
        "list": Entry("hearth.cli.verbs:list_", "List apps, routes, calls or contexts.", _VERBS),
        "inspect": Entry("hearth.cli.verbs:inspect", "Show an app, a route, a call or a context.", _VERBS),
        "get": Entry("hearth.cli.verbs:get", "Get a call, a log or a value of a configuration.", _VERBS),
        "update": Entry("hearth.cli.verbs:update", "Change an app, a route or the context in use.", _VERBS),
        "delete": Entry("hearth.cli.verbs:delete", "Delete an app, a route or a context.", _VERBS),
        "use": Entry("hearth.cli.verbs:use", "Use a context.", _VERBS),
        "unset": Entry("hearth.cli.verbs:unset", "Use no context, or take a value away.", _VERBS),
        "config": Entry("hearth.cli.verbs:config", "Set a value of a configuration.", _VERBS),
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
        if name in self.entries and self.entries[name].panel in (_NODE, _FUNCTIONS):
            _open_logs()
        found = super().resolve_command(ctx, [name, *args[1:]])
        _let_collect()
        return found


app = typer.Typer(cls=_Hearth, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hearth {__version__} (speaks Fn {FN_VERSION})")
        raise typer.Exit


@app.callback()
def hearth(
    ctx: typer.Context,
    context: Annotated[
        str, typer.Option(envvar="FN_CONTEXT", help="The context, instead of the one in use.", show_default=False)
    ] = "",
    api_url: Annotated[
        str, typer.Option(envvar="FN_API_URL", help="The server, instead of the context's.", show_default=False)
    ] = "",
    registry: Annotated[
        str, typer.Option(envvar="FN_REGISTRY", help="The registry, instead of the context's.", show_default=False)
    ] = "",
    token: Annotated[
        str, typer.Option(envvar="FN_TOKEN", help="Sent to the API as bearer token.", show_default=False)
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Run functions that live in containers."""
    ctx.obj = Session(context=context, api_url=api_url, registry=registry, token=token, verbose=verbose)
    ctx.call_on_close(ctx.obj.close)


def main() -> None:
    """Run the command as this process."""
    gc.disable()  # while the command is imported: that makes many objects, and next to no garbage
    run()


def run() -> None:
    """Run the command; an error is one line on stderr, with exit status 1, or 2 if the command is misused."""
    try:
        status = app(prog_name="hearth", standalone_mode=False)
    except HearthError as exc:
        _close_logs()  # what led to it comes before it
        _fail(str(exc), 1)
    except _UsageError as exc:
        _fail(_usage(exc), 2)
    except typer.Abort:
        _fail("not done", 1)
    except KeyboardInterrupt:  # before the node takes the signals itself
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stdout = sys.stderr
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)


def _let_collect() -> None:
    """Have the collector work, and never look at what was imported: that stays."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _usage(exc: Any) -> str:
    message = str(exc.format_message()).rstrip(".")
    if not message or exc.ctx is None:
        return message  # a group without a command has shown its help
    return f"{message}; see {exc.ctx.command_path} --help"


def _fail(text: str, status: int) -> None:
    if text:
        typer.echo(redact(f"hearth: {text}"), err=True)
    sys.exit(status)


def _open_logs() -> None:
    """Give every line of a node the same form, from the first."""
    from hearth.telemetry import logs

    logs.configure()


def _close_logs() -> None:
    if (logs := sys.modules.get("hearth.telemetry.logs")) is not None:
        logs.close()
