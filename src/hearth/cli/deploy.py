"""hearth deploy: from a folder to a route that answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import typer

from hearth import projects
from hearth.aio.clock import SystemClock
from hearth.cli.build import Driver, FollowOutside, list_left_out, warn
from hearth.cli.client import Client, Record, ServerError
from hearth.cli.completion import app_names
from hearth.cli.deploy_target import Target, choose_target
from hearth.cli.output import CommandError, note, say
from hearth.cli.progress import progress
from hearth.cli.route_change import as_change, foreign_config, resets
from hearth.cli.session import session
from hearth.cli.upload import upload
from hearth.drivers.docker.build import Image, build_image, push_image, pushed_reference
from hearth.drivers.local import bundle
from hearth.drivers.local.build import build_bundle
from hearth.drivers.local.stored import digests, image_store
from hearth.images.collect import collect
from hearth.images.errors import ImageStoreError
from hearth.projects import AppFile, FuncFile, ProjectError, check, sources

#: Below the home folder: the images that this user has deployed.
_CACHE: Final = ".cache/hearth"
_KEPT_S: Final = 30 * 86400.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """The options of all functions of one deploy."""

    client: Client
    app: str
    app_config: dict[str, str]
    target: Target
    registry: str
    bump: bool
    no_cache: bool
    build_args: tuple[str, ...]
    follow_outside: bool
    verbose: bool

    def check_config(self, func: FuncFile) -> None:
        """Make sure that the function's required configuration is set.

        Raises:
            CommandError: Some of it is not.
        """
        if missing := func.missing_config(self.app_config):
            raise CommandError(
                f"{func.file}: expects: {', '.join(missing)} is set neither here nor in app {self.app}; "
                f"hearth config app {self.app} {missing[0]} VALUE sets it"
            )

    def deploy(self, func: FuncFile, path: str) -> None:
        """Deploy one function: build, raise the version, push, route."""
        warn(func)
        if self.verbose:
            list_left_out(func, self.follow_outside)
        if self.bump:
            func = dataclasses.replace(func, version=projects.next_version(func))
        image = self._build(func)
        try:
            self._route(func, path, {**func.route(), "image": image})
        except ServerError as exc:
            raise CommandError(f"{func.file}: {exc}") from exc
        if func.schedules is not None:
            self._schedule(func, path, func.schedules)
        if self.verbose:
            note(f"{path} is pinned to {image}")
        say(f"Deployed {image.partition('@')[0]} at {self.client.url}/r/{self.app}{path}")

    def _route(self, func: FuncFile, path: str, route: Record) -> None:
        """Make the route equal to the function's file; report what is kept, and what goes back to its default."""
        try:
            stored = self.client.route(self.app, path)
        except ServerError as exc:
            if exc.status != 404:
                raise
            self.client.put_route(self.app, path, route)
            return
        self.client.put_route(self.app, path, as_change(stored, route))
        for reset in resets(stored, route):
            note(f"hearth: {path}: {reset}, as {func.file} does not set it")
        if stored.get("cpus") and "cpus" not in route:
            note(
                f"hearth: {path}: kept cpus {stored['cpus']}, which {func.file} does not set; to remove this limit, "
                "delete the route and deploy again"
            )
        if stored.get("auth") and "auth" not in route:  # never opened because a file says nothing
            note(
                f"hearth: {path}: kept auth {stored['auth']}, which {func.file} does not set; "
                f"hearth routes update {self.app} {path} --auth default removes it"
            )
        for name in foreign_config(stored, route):
            note(
                f"hearth: {path}: kept config {name}, which {func.file} does not set; "
                f"hearth routes config unset {self.app} {path} {name} removes it"
            )

    def _schedule(self, func: FuncFile, path: str, schedules: Iterable[Record]) -> None:
        """Store the schedules of a function's file; report those of its route that the file does not have."""
        names = set()
        for schedule in schedules:
            names.add(schedule["name"])
            try:
                stored = self.client.put_schedule(self.app, schedule["name"], {**schedule, "route": path})
            except ServerError as exc:
                raise CommandError(f"{func.where('schedules')}: {schedule['name']}: {exc}") from exc
            note(f"schedule {schedule['name']} calls {path} next at {', '.join(stored['next'][:1]) or 'no time'}")
        for stored in self.client.schedules(self.app):
            if stored.get("route") == path and stored["name"] not in names:
                note(
                    f"hearth: {path}: kept schedule {stored['name']}, which {func.file} does not set; "
                    f"hearth schedules delete {self.app} {stored['name']} deletes it"
                )

    def _build(self, func: FuncFile) -> str:
        """Build what the driver runs, then raise the version; return a reference that no later build changes."""
        if self.target.driver == "process":
            return self._upload(func)
        with progress(f"building {func.image(self.registry)}"):
            built = build_image(
                func,
                func.image(self.registry),
                no_cache=self.no_cache,
                build_args=self.build_args,
                follow_outside=self.follow_outside,
            )
        self._raise_version(func)
        if self.target.push:
            return self._push(built)
        built.keep()
        return built.pinned

    def _upload(self, func: FuncFile) -> str:
        """Build the image of a folder, and upload what the server lacks of it."""
        bundles = Path.home() / _CACHE / "bundles"
        with progress(f"building {func.image()}"):
            made = build_bundle(func, bundles, follow_outside=self.follow_outside, upgrade=self.no_cache)
        name, _, tag = func.image().partition(":")
        store = image_store(bundles)
        try:
            with progress(f"uploading {func.image()} to {self.client.url}"):
                done = upload(self.client, store, made.manifest.content, f"{self.app}/{name}", tag or "latest")
            self._raise_version(func)
            _forget_old(bundles)
        except ImageStoreError as exc:
            raise CommandError(f"{func.file}: {exc}") from exc
        if self.verbose:
            note(f"uploaded {done.sent} of {done.total} bytes")
        return made.pin(func.image())

    def _raise_version(self, func: FuncFile) -> None:
        if self.bump and func.version is not None:
            projects.write_version(func.file, func.version)

    def _push(self, image: Image) -> str:
        if self.verbose:
            note(f"docker push {image.reference}")
        try:
            with progress(f"pushing {image.reference}"):
                push_image(image.reference, verbose=self.verbose)
        except ProjectError as exc:
            raise CommandError(f"{exc}; --local deploys without a push") from exc
        return pushed_reference(image)


def deploy(
    ctx: typer.Context,
    app: Annotated[
        str,
        typer.Option("--app", help="App name (default: from app.yaml).", show_default=False, autocompletion=app_names),
    ] = "",
    create_app: Annotated[bool, typer.Option(help="Create the app if missing.")] = True,
    all_: Annotated[bool, typer.Option("--all", help="Deploy every function in and below the folder.")] = False,
    local: Annotated[bool, typer.Option("--local", "--skip-push", help="Do not push images.")] = False,
    no_bump: Annotated[bool, typer.Option("--no-bump", help="Keep the version.")] = False,
    registry: Annotated[
        str, typer.Option(help="Registry for images (default: from the context).", show_default=False)
    ] = "",
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Build images without cache.")] = False,
    build_arg: Annotated[
        list[str] | None, typer.Option("--build-arg", help="Build argument NAME=VALUE for a Dockerfile.")
    ] = None,
    driver: Driver = None,
    follow_outside: FollowOutside = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="List files left out of a build, and show Docker's output.")
    ] = False,
    working_dir: Annotated[
        Path, typer.Option("--working-dir", "-w", help="Folder (default: the current one).")
    ] = Path(),
) -> None:
    """Build a function, increment its version and create its route; the app is created if it is missing.

    A server that runs functions as processes gets images of folders, of which it stores what it lacks. Others get
    images that Docker builds.

    Examples:
        hearth deploy --app demo
        hearth deploy --app demo -w hello --no-bump
        hearth deploy --app demo --all
    """
    here = session(ctx)
    if not working_dir.is_dir():
        raise CommandError(f"{working_dir}: no such folder")
    file = projects.load_app(working_dir)
    name = app or (file.name if file is not None else None) or ""
    if not name:
        raise CommandError(f"{working_dir}: no app; give --app NAME, or write name: into app.yaml")
    functions = _functions(working_dir, all_, file is not None)
    prefix = registry.rstrip("/") or here.image_registry()
    target = choose_target(here.client(), driver, functions.values(), prefix, local=local)
    for func in functions.values():
        _check(func, target.driver, bump=not no_bump, follow_outside=follow_outside)
    deployment = _Deployment(
        client=here.client(),
        app=name,
        app_config=_app_config(here.client(), name, file, create_app),
        target=target,
        registry=prefix,
        bump=not no_bump,
        no_cache=no_cache,
        build_args=tuple(build_arg or ()),
        follow_outside=follow_outside,
        verbose=verbose or here.verbose,
    )
    for func in functions.values():
        deployment.check_config(func)
    for path, func in functions.items():
        deployment.deploy(func, path)
    for warning in here.client().warnings():
        if "network" in warning.lower():  # else the author learns of it from calls that fail
            note(f"hearth: this server says: {warning}")


def _forget_old(bundles: Path) -> None:
    """Remove builds of this user that were not deployed for a month: the server has its own."""
    before = SystemClock().now().timestamp() - _KEPT_S
    bundle.prune(bundles, (), before=before)
    store = image_store(bundles)
    collect(store, digests(bundles, ()), before=before, layers=bundles / bundle.LAYERS)


def _functions(folder: Path, all_: bool, has_app_file: bool) -> dict[str, FuncFile]:
    """Return what is deployed, by path.

    Raises:
        ProjectError: A function's file is wrong.
        CommandError: There is none, or two have one name or one path.
    """
    folders = list(projects.find_all(folder)) if all_ else [folder]
    if not folders:
        raise CommandError(f"{folder}: no func.yaml in or below this folder; hearth init makes one")
    by_path: dict[str, FuncFile] = {}
    by_name: dict[str, FuncFile] = {}
    for place in folders:
        func = projects.load(place, folder if all_ else None)
        path = "/" if place == folder and has_app_file and func.path is None else func.route_path
        if (other := by_name.setdefault(func.name, func)) is not func:
            raise CommandError(f"{func.file}: name {func.name} is that of {other.file} as well; change one of them")
        if (other := by_path.setdefault(path, func)) is not func:
            raise CommandError(
                f"{func.file}: path {path} is that of {other.file} as well; write path: into one of them"
            )
    return by_path


def _check(func: FuncFile, driver: str, *, bump: bool, follow_outside: bool) -> None:
    """Find what would keep a function from being built.

    Raises:
        ProjectError: What it is.
    """
    if bump:
        projects.next_version(func)
    if func.kind != "docker":
        sources.scan(func.folder, follow_outside=follow_outside)
    if not func.build:  # its commands may write its program
        check.check(func, as_image=driver != "process")


def _app_config(client: Client, name: str, file: AppFile | None, create: bool) -> dict[str, str]:
    """Create or update the app from its file; return the variables that it gives, secrets without their values."""
    config = dict(file.config or {}) if file is not None else {}
    changes: Record = {"config": config} if config else {}
    if file is not None and file.secrets is not None:
        changes["secrets"] = list(file.secrets)
    if file is not None and file.auth is not None:
        changes["auth"] = file.auth
    try:
        found = client.update_app(name, changes) if changes else client.app(name)
    except ServerError as exc:
        if exc.status != 404:
            raise
        if not create:
            raise CommandError(f"app {name} does not exist; hearth create app {name} makes it") from exc
        found = client.create_app({"name": name, **{key: value for key, value in changes.items() if key != "secrets"}})
        if changes.get("secrets"):  # a new app has none: the error says what to store
            client.update_app(name, changes)
    return {**found.get("config", {}), **dict.fromkeys(found.get("secrets", []), "")}
