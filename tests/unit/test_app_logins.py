"""The login with which an image is pulled: that of the app whose function it is."""

from __future__ import annotations

from collections.abc import Iterable

from tests.support.agent import bench, settle
from tests.support.virtual_time import run

from hearth.access.logins import StoredLogins
from hearth.models.app import App
from hearth.models.errors import SecretGone
from hearth.models.registry_login import RegistryLogin
from hearth.models.route import Route
from hearth.models.secret import SecretValues

_LOGIN = '{"username":"me","password":"pass-w0rd"}'


class Secrets:
    """The secrets of one app; notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []

    async def values(self, app_name: str, app_id: str, names: Iterable[str]) -> SecretValues:
        wanted = tuple(names)
        self.asked.append((app_name, app_id, wanted))
        if (app_name, app_id, wanted) != ("mine", "1", ("registry:r.example",)):
            raise SecretGone(app_name, wanted[0])
        return SecretValues({wanted[0]: _LOGIN}, {wanted[0]: "1"})


def test_each_container_is_made_with_the_login_of_its_own_app_which_only_a_pull_asks_for() -> None:
    async def scenario() -> None:
        secrets = Secrets()
        async with bench(logins=StoredLogins(secrets)) as made:
            for app in (App(name="mine", id="1"), App(name="mine", id="2"), App(name="other", id="3")):
                route = Route(app_name=app.name, path="/f", image="obey", format="json")
                await made.ask(made.functions.of_route(app, route), echo="x")
                await settle()
            assert secrets.asked == [], "nothing was pulled"
            found = {}
            for container in made.driver.containers.values():
                assert container.spec.find_login is not None
                found[container.spec.app] = await container.spec.find_login("r.example")
            assert found == {"1": RegistryLogin("me", "pass-w0rd"), "2": None, "3": None}
            assert "pass-w0rd" not in repr(made.driver.containers) + repr(found)
            assert {app for app, _, _ in secrets.asked} == {"mine", "other"}

    run(scenario())
