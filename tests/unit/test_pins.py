"""What an image stands for, and who finds that out after the deploy."""

from __future__ import annotations

import pytest
from tests.support.agent import settle
from tests.support.clock import FakeClock

from hearth.access.pins import Pins
from hearth.drivers.base import ContainerSpec
from hearth.models.app import App
from hearth.models.errors import StoreUnavailable
from hearth.models.fn import Fn, FnPatch, apply_fn_patch
from hearth.models.image import Pin, digest_of, is_pinned, pinned
from hearth.models.route import LIMITS, Route
from hearth.models.times import ZERO
from hearth.nodes.pinning import pin_existing
from hearth.server.api_v1.compile import compile_route
from hearth.server.api_v2.functions import compile_fn
from hearth.stores.pins.base import PinStore
from hearth.testing.scripted_driver import FakeDriver, Script

ONE, TWO = "sha256:" + "1" * 64, "sha256:" + "2" * 64
APP = App(name="a", id="A")


def route(image: str = "f:1", digest: str = "") -> Route:
    return Route(app_name="a", path="/f", image=image, digest=digest)


def fn(digest: str = "") -> Fn:
    return Fn(id="F", name="f", app_id="A", image="f:1", digest=digest)


@pytest.mark.parametrize(
    ("image", "digest", "meant"),
    [
        ("f:1", "", "f:1"),
        ("f:1", ONE, f"f:1@{ONE}"),
        ("host:5000/f", ONE, f"host:5000/f@{ONE}"),
        (f"f:1@{ONE}", ONE, f"f:1@{ONE}"),
        (f"f:1@{ONE}", "", f"f:1@{ONE}"),
    ],
)
def test_a_digest_says_more_than_a_tag(image: str, digest: str, meant: str) -> None:
    assert pinned(image, digest) == meant
    assert digest_of(meant) == (ONE if "@" in meant else "")
    assert is_pinned(meant) == ("@" in meant)


def test_containers_run_the_digest_and_another_one_is_another_function() -> None:
    specs = [compile_route(APP, route(digest=digest), LIMITS) for digest in (ONE, ONE, TWO, "")]
    assert [spec.image for spec in specs] == [f"f:1@{ONE}", f"f:1@{ONE}", f"f:1@{TWO}", "f:1"]
    assert specs[0].hot_key == specs[1].hot_key
    assert len({spec.hot_key for spec in specs}) == 3
    assert compile_fn(APP, fn(digest=ONE), LIMITS).image == f"f:1@{ONE}"


def test_the_digest_of_a_fn_changes_with_its_image_only() -> None:
    known = fn(digest=ONE)
    assert apply_fn_patch(known, FnPatch(memory=64, digest=TWO), ZERO).digest == ONE
    assert apply_fn_patch(known, FnPatch(image="f:1", digest=TWO), ZERO).digest == TWO
    assert apply_fn_patch(known, FnPatch(image="f:2"), ZERO).digest == ""


class Store(PinStore):
    """A store of pins. ``broken`` makes it fail."""

    def __init__(self, *unpinned: Pin) -> None:
        self.unpinned = list(unpinned)
        self.pins: list[Pin] = []
        self.broken = False

    async def pin(self, pin: Pin) -> bool:
        if self.broken:
            raise StoreUnavailable("it is away")
        self.pins.append(pin)
        return True

    async def get_unpinned(self) -> list[Pin]:
        if self.broken:
            raise StoreUnavailable("it is away")
        return self.unpinned


class Node:
    """A node that knows some images, and counts how often it is asked."""

    def __init__(self, **digests: str) -> None:
        self.digests = {name.replace("_", ":"): digest for name, digest in digests.items()}
        self.asked: list[str] = []

    async def resolve(self, image: str) -> str:
        self.asked.append(image)
        return self.digests.get(image, "")


class Machine:
    """An agent on a scripted driver, whose containers are pinned in a store."""

    def __init__(self, clock: FakeClock, **digests: str) -> None:
        self.store = Store()
        self.driver = FakeDriver(clock, {"f:1": Script(), "other:1": Script()})
        self.driver.digests = {name.replace("_", ":"): digest for name, digest in digests.items()}
        self.pins = Pins(self.driver.digest_of, self.store)

    async def prepare(self, *functions: Route | Fn) -> None:
        """Make a container of each function."""
        for number, function in enumerate(functions):
            if isinstance(function, Route):
                spec = compile_route(APP, function, LIMITS)
            else:
                spec = compile_fn(APP, function, LIMITS)
            wanted = ContainerSpec(id=f"{number}{spec.ref}", image=spec.image, env={}, memory_mib=1)
            self.pins.note(spec, await self.driver.prepare(wanted))
        await settle()


async def test_a_node_pins_what_its_containers_run() -> None:
    on = Machine(FakeClock(), f_1=ONE)
    await on.prepare(route(), route(), fn())
    assert sorted(set(on.store.pins)) == [Pin("a", "/f", "f:1", ONE), Pin("a", "F", "f:1", ONE)]
    on.store.pins.clear()
    on.driver.images[f"f:1@{ONE}"] = Script()
    await on.prepare(route(digest=ONE), route(image="other:1"))
    assert on.store.pins == []
    await on.pins.close()
    await on.driver.close()


async def test_a_pin_that_is_not_stored_is_tried_again_with_the_next_container() -> None:
    on = Machine(FakeClock(), f_1=ONE)
    on.store.broken = True
    await on.prepare(route())
    on.store.broken = False
    await on.prepare(route())
    assert on.store.pins == [Pin("a", "/f", "f:1", ONE)]
    await on.pins.close()
    await on.driver.close()


async def test_functions_of_an_earlier_release_are_pinned_to_what_they_run() -> None:
    found = [Pin("a", "/f", "f:1"), Pin("b", "/f", "f:1"), Pin("", "F", f"g@{TWO}"), Pin("a", "/x", "unknown")]
    store, node = Store(*found), Node(f_1=ONE)
    await pin_existing(store, node.resolve)
    assert [pin.digest for pin in store.pins] == [ONE, ONE, TWO, ""]
    assert node.asked == ["f:1", "unknown"]
    store.broken = True
    await pin_existing(store, node.resolve)  # the node starts all the same
