"""Quotas as fields of apps."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.support.api import APPS, message

from hearth.models.quotas import QUOTAS

ALL = dict.fromkeys(QUOTAS, 7)


async def test_quotas_are_created_shown_merged_and_removed(api: httpx.AsyncClient) -> None:
    created = await api.post(APPS, json={"app": {"name": "myapp", "quotas": ALL}})
    assert created.json()["app"]["quotas"] == ALL
    change = {"quotas": {"memory_mib": None, "burst": 0, "weight": 1000}}
    changed = (await api.patch(f"{APPS}/myapp", json={"app": change})).json()["app"]
    expected = {name: value for name, value in ALL.items() if name != "memory_mib"} | {"burst": 0, "weight": 1000}
    assert changed["quotas"] == expected
    await api.patch(f"{APPS}/myapp", json={"app": {"config": {"A": "1"}}})
    assert (await api.get(f"{APPS}/myapp")).json()["app"]["quotas"] == expected
    await api.patch(f"{APPS}/myapp", json={"app": {"quotas": dict.fromkeys(QUOTAS)}})
    assert "quotas" not in (await api.get(APPS)).json()["apps"][0]


@pytest.mark.parametrize(
    ("quotas", "text"),
    [
        ({"memory": 1}, "Invalid quota: 'memory' is not one of"),
        ({"memory_mib": -1}, "Invalid quota: memory_mib must be an integer from 0 to 9007199254740991, or null"),
        ({"memory_mib": 1.5}, "Invalid quota: memory_mib must be"),
        ({"memory_mib": True}, "Invalid quota: memory_mib must be"),
        ({"memory_mib": "512"}, "Invalid quota: memory_mib must be"),
        ({"memory_mib": 2**53}, "Invalid quota: memory_mib must be"),
        ({"weight": 0}, "Invalid quota: weight must be an integer from 1 to 1000"),
        ([], "Invalid JSON"),
    ],
)
async def test_what_is_no_quota_is_refused_and_changes_nothing(api: httpx.AsyncClient, quotas: Any, text: str) -> None:
    await api.post(APPS, json={"app": {"name": "myapp", "quotas": {"burst": 3}}})
    refused = await api.patch(f"{APPS}/myapp", json={"app": {"quotas": quotas}})
    assert (refused.status_code, message(refused)[: len(text)]) == (400, text)
    assert (await api.get(f"{APPS}/myapp")).json()["app"]["quotas"] == {"burst": 3}
