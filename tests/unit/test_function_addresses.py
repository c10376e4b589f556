"""Which addresses functions may not reach."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.models.addresses import PRIVATE, refused

Network = ipaddress.IPv4Network
networks = st.builds(
    lambda address, prefix: Network((address, prefix), strict=False),
    st.sampled_from([int(network.network_address) for network in PRIVATE]).flatmap(
        lambda base: st.integers(base, base + 2**21)
    ),
    st.integers(8, 32),
)


@given(st.lists(networks, max_size=4), st.integers(0, 2**32 - 1))
def test_an_address_is_refused_if_it_is_private_and_not_allowed(allowed: list[Network], number: int) -> None:
    address = ipaddress.IPv4Address(number)
    private = any(address in network for network in PRIVATE)
    excepted = any(address in network for network in allowed)
    assert any(address in network for network in refused(allowed)) == (private and not excepted)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("0.0.0.0", "0.255.255.255"),
        ("10.0.0.0", "10.255.255.255"),
        ("100.64.0.0", "100.127.255.255"),
        ("169.254.0.0", "169.254.255.255"),
        ("172.16.0.0", "172.31.255.255"),
        ("192.0.0.0", "192.0.0.255"),
        ("192.168.0.0", "192.168.255.255"),
        ("198.18.0.0", "198.19.255.255"),
        ("224.0.0.0", "255.255.255.255"),
    ],
)
def test_each_documented_range_is_refused_to_its_borders(first: str, last: str) -> None:
    def is_refused(number: int) -> bool:
        return any(ipaddress.IPv4Address(number) in network for network in refused([]))

    begin, end = int(ipaddress.IPv4Address(first)), int(ipaddress.IPv4Address(last))
    assert [is_refused(number) for number in (begin, (begin + end) // 2, end)] == [True] * 3
    beyond = [number for number in (begin - 1, end + 1) if 0 <= number < 2**32]
    assert not any(map(is_refused, beyond))


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "100.100.100.200", "172.31.255.255", "192.168.0.1"])
def test_metadata_services_and_sites_are_private(address: str) -> None:
    assert any(ipaddress.IPv4Address(address) in network for network in refused([]))


@given(st.lists(networks, max_size=4))
def test_no_network_is_refused_twice(allowed: list[Network]) -> None:
    found = refused(allowed)
    assert not [one for one in found for other in found if one is not other and one.overlaps(other)]
