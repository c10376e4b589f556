"""Check the signatures of what Hearth sends: ``Hearth-Signature: t=SECONDS,v1=HEX``."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterable


def is_signed(body: bytes, signature: str, keys: str | Iterable[str], tolerance_s: int = 300) -> bool:
    """Return whether a body has a valid signature.

    Args:
        body: The body as it came, before it is decoded.
        signature: The value of the header ``Hearth-Signature``; empty if there is none.
        keys: The key, or the keys while one replaces another.
        tolerance_s: Seconds by which the time of the signature may differ from now.
    """
    parts = [part.strip().partition("=") for part in signature.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    given = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not times[0].isdecimal() or not times[0].isascii() or len(times[0]) > 11:
        return False
    if abs(time.time() - int(times[0])) > tolerance_s:
        return False
    signed = times[0].encode() + b"." + body
    known = [
        hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
        for key in ([keys] if isinstance(keys, str) else keys)
    ]
    return any(hmac.compare_digest(one.encode(), other.encode()) for one in known for other in given)
