"""An event of the audit log: who did what to which resource."""

from __future__ import annotations

import datetime as dt

import msgspec


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change, or a request that was refused.

    Attributes:
        id: Sorts by time.
        principal: The role of the sender, with the name of its token: ``deployer:ci``.
        token_id: The id of its stored token; empty if it had none.
        action: The action, as errors name it.
        app: The app concerned; empty for none.
        resource: Method and path of the request.
        status: The HTTP status of the answer.
        address: The address of the client.
    """

    id: str
    created_at: dt.datetime
    principal: str
    token_id: str = ""
    action: str
    app: str = ""
    resource: str
    status: int
    address: str = ""
