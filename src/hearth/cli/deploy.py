"""hearth deploy: from a folder to a route that answers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

from hearth import projects
from hearth.cli.build import Driver, load
from hearth.cli.client import Client, ServerError
from hearth.cli.output import CommandError, note, say
from hearth.cli.session import session
from hearth.drivers.docker.build import build_image, push_image
from hearth.drivers.process.build import build_bundle
from hearth.projects import AppFile, FuncFile, ProjectError
from hearth.server.about import BUNDLES, DRIVER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """What holds for all functions of one deploy."""

    client: Client
    app: str
    app_config: dict[str, str]
    driver: str
    bundles: Path
    registry: str
    push: bool
    bump: bool
    no_cache: bool
    build_args: tuple[str, ...]
    verbose: bool

    def deploy(self, folder: Path, path: str | None) -> None:
        """One function: check, raise the version, build, push, route."""
        func = load(folder)
        if missing := func.missing_config(self.app_config):
            raise CommandError(
                f"{func.file}: expects: {', '.join(missing)} is set neither here nor in app {self.app}; "
                f"hearth config app {self.app} {missing[0]} VALUE sets it"
            )
        if self.bump:
            projects.bump(folder)
            func = projects.load(folder)
        image = self._build(func)
        path = path or func.route_path
        try:
            self.client.put_route(self.app, path, {**func.route(), "image": image})
        except ServerError as exc:
            raise CommandError(f"{func.file}: {exc}") from exc
        say(f"Deployed {image} at {self.client.url}/r/{self.app}{path}")

    def _build(self, func: FuncFile) -> str:
        if self.driver == "process":
            build_bundle(func, self.bundles)
            return func.image()
        image = build_image(func, func.image(self.registry), no_cache=self.no_cache, build_args=self.build_args)
        if self.push:
            self._push(image)
        return image

    def _push(self, image: str) -> None:
        if self.verbose:
            note(f"docker push {image}")
        try:
            push_image(image, verbose=self.verbose)
        except ProjectError as exc:
            raise CommandError(f"{exc}; --local deploys without a push") from exc


def deploy(
    ctx: typer.Context,
    app: Annotated[str, typer.Option("--app", help="The app; app.yaml's, unless given.", show_default=False)] = "",
    create_app: Annotated[bool, typer.Option(help="Make the app if it is missing.")] = True,
    all_: Annotated[bool, typer.Option("--all", help="Every function in and below the folder.")] = False,
    local: Annotated[bool, typer.Option("--local", "--skip-push", help="Do not push images.")] = False,
    no_bump: Annotated[bool, typer.Option("--no-bump", help="Leave the version as it is.")] = False,
    registry: Annotated[str, typer.Option(help="What goes before an image's name.", show_default=False)] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="An image: run every step again.")] = False,
    build_arg: Annotated[list[str] | None, typer.Option("--build-arg", help="NAME=VALUE for a Dockerfile.")] = None,
    driver: Driver = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")] = False,
    working_dir: Annotated[Path, typer.Option("--working-dir", "-w", help="The folder, instead of this one.")] = Path(),
) -> None:
    """Raise a function's version, build it, and give it a route; its app is made on demand.

    A server that runs functions as processes gets bundles, which needs the same machine; others get images.
    """
    here = session(ctx)
    if not working_dir.is_dir():
        raise CommandError(f"{working_dir}: no such folder")
    file = projects.load_app(working_dir)
    name = app or (file.name if file is not None else None) or ""
    if not name:
        raise CommandError(f"{working_dir}: no app; give --app NAME, or write name: into app.yaml")
    folders = list(projects.find_all(working_dir)) if all_ else [working_dir]
    if not folders:
        raise CommandError(f"{working_dir}: no func.yaml in or below this folder; hearth init makes one")
    for folder in folders:
        projects.load(folder)  # nothing is built or changed if one of the files is wrong
    prefix = registry.rstrip("/") or here.image_registry()
    chosen, bundles = _target(here.client(), driver)
    deployment = _Deployment(
        client=here.client(),
        app=name,
        app_config=_app_config(here.client(), name, file, create_app),
        driver=chosen,
        bundles=bundles,
        registry=prefix,
        push=bool(prefix) and not local,
        bump=not no_bump,
        no_cache=no_cache,
        build_args=tuple(build_arg or ()),
        verbose=verbose or here.verbose,
    )
    for folder in folders:
        at_root = folder == working_dir and file is not None and projects.load(folder).path is None
        deployment.deploy(folder, "/" if at_root else None)


def _app_config(client: Client, name: str, file: AppFile | None, create: bool) -> dict[str, str]:
    """The app's configuration, once the app is there and has what its file says."""
    config = dict(file.config or {}) if file is not None else {}
    try:
        found = client.update_app(name, {"config": config}) if config else client.app(name)
    except ServerError as exc:
        if exc.status != 404:
            raise
        if not create:
            raise CommandError(f"app {name} does not exist; hearth create app {name} makes it") from exc
        found = client.create_app({"name": name, "config": config})
    return dict(found.get("config", {}))


def _target(client: Client, driver: str | None) -> tuple[str, Path]:
    """What to build, and where bundles go."""
    told = client.version().headers
    chosen = driver or told.get(DRIVER, "docker")
    if chosen != "process":
        return chosen, Path()
    bundles = Path(told.get(BUNDLES, ""))
    if not told.get(BUNDLES):
        raise CommandError(
            f"{client.url} runs bundles, which are built on its own machine: deploy there, or use a server with Docker"
        )
    if not bundles.parent.is_dir() or not os.access(bundles.parent, os.W_OK):
        raise CommandError(f"{bundles}: the server's folder of bundles cannot be written to from here")
    return chosen, bundles
