"""Choose what a deploy builds for a server, and where it goes; refuse what cannot work before anything is built."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Final

from hearth.cli.client import Client
from hearth.cli.local_server import LocalServer, find, is_local
from hearth.cli.output import CommandError
from hearth.projects import FuncFile
from hearth.server.about import DRIVER, NODE
from hearth.settings import API, DriverName

_OF_HEARTH: Final = "Hearth-Version"


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The target of a deploy.

    Attributes:
        push: Whether images are pushed to their registry; those of folders always go to the server's own.
    """

    driver: DriverName
    push: bool = False


def choose_target(
    client: Client, driver: DriverName | None, functions: Iterable[FuncFile], registry: str, *, local: bool
) -> Target:
    """Return what to build, and where it goes.

    Args:
        client: Of the server.
        driver: The driver that was asked for; the server's if ``None``.
        functions: What is to be deployed.
        registry: The prefix of images without one.
        local: Images are not pushed: the server uses the Docker Engine of this machine.

    Raises:
        CommandError: The server could not run what would be built.
    """
    about = client.version().headers
    if DRIVER not in about:  # without a token a client sees the version only
        client.log_in()
        about = client.version().headers
    is_api_node = about.get(NODE) == API
    chosen = _driver(client.url, about.get(DRIVER, "docker" if _OF_HEARTH not in about else ""), driver)
    if chosen == "process":
        for func in functions:
            if func.kind == "docker":
                raise CommandError(
                    f"{func.file}: {client.url} runs functions as processes, and one with a Dockerfile needs Docker"
                )
        return Target(chosen)
    server = find(client.url)
    uses_this_engine = is_local(client.url) and (not is_api_node or (server is not None and _is_shared(server)))
    if not local and not uses_this_engine:
        for func in functions:
            if "/" not in func.image(registry):
                raise CommandError(
                    f"{func.image()}: without a registry, this image stays on this machine, where {client.url} does "
                    "not look for it; give --registry, or --local if it uses the Docker Engine of this machine"
                )
    return Target(chosen, push=not local and (bool(registry) or not uses_this_engine))


def _driver(url: str, served: str, wanted: DriverName | None) -> DriverName:
    if not served and wanted is None:
        raise CommandError(
            f"{url} does not say how it runs functions: it is an API node without FN_DRIVER; set that to what its "
            "runners use, or give --driver"
        )
    if served and wanted is not None and served != wanted:
        raise CommandError(f"--driver {wanted}: {url} runs functions with the driver {served}; leave the option out")
    return "process" if (wanted or served) == "process" else "docker"


def _is_shared(server: LocalServer) -> bool:
    """Return whether runners of this machine see the bundles of their API node, as those of ``start --nodes`` do."""
    bundles = (server.data / "bundles").resolve()
    return any((runner / "bundles").resolve() == bundles for runner in server.data.glob("runner-*"))
