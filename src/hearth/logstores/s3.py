"""Logs as objects in any store that speaks S3: it needs to know put, get, and making a bucket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as EndpointError

from hearth.clock import Clock, SystemClock, pause
from hearth.logstores.base import Log, LogsLost, LogStore
from hearth.models.errors import CallLogNotFound, StartUpError, StoreUnavailable
from hearth.telemetry import metrics
from hearth.telemetry.logs import get_logger
from hearth.telemetry.tracing import span

#: Uploads at a time; each holds one log, which the recorder has in memory anyway.
_UPLOADS: Final = 16
#: Seconds that the logs of a batch may take, and those of the next one where that was not enough: the records of later
#: calls wait for it.
_LIMIT_S: Final = 10.0
_LIMIT_OF_FAILING_S: Final = 1.0
_PROGRESS_S: Final = 5.0
_RETRY_S: Final = 0.5
_EXAMPLE: Final = "in path of s3 api url. e.g. s3://s3.com/us-east-1/my_bucket"
#: Statuses from here on are of a store that has trouble of its own.
_NOT_READY: Final = 500
_OURS_ALREADY: Final = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
_NOT_THERE: Final[tuple[type[Exception], ...]] = (HTTPClientError, EndpointError, aiohttp.ClientError, OSError)
_FAILURES: Final = (BotoCoreError, ClientError, aiohttp.ClientError, OSError)
#: Two tries, seconds each: who waits for an upload is a call that wants to end.
_CONFIG: Final = {
    "signature_version": "s3v4",
    "s3": {"addressing_style": "path"},
    "connect_timeout": 2,
    "read_timeout": 10,
    "retries": {"total_max_attempts": 2},
    "max_pool_connections": _UPLOADS,
    "request_checksum_calculation": "when_required",  # not every store knows the newer checksums
    "response_checksum_validation": "when_required",
}

_log = get_logger(__name__)
_uploaded = metrics.histogram("fn_s3_log_upload_size")
_downloaded = metrics.histogram("fn_s3_log_download_size")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """What an address says: ``s3://access_key:secret_key@host[:port]/region/bucket[?ssl=true]``."""

    endpoint: str
    region: str
    bucket: str
    ssl: bool
    access_key: str
    secret_key: str = dataclasses.field(repr=False)


def parse(url: str) -> Place:
    """Read an address.

    Raises:
        StartUpError: It is incomplete; the text says what is missing.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise StartUpError("FN_LOGSTORE_URL: bad log store URL: its host is not of the form host:port") from None
    path = parts.path.split("/", 2)
    if len(path) < 3:
        raise StartUpError(f"must provide bucket name and region {_EXAMPLE}")
    _, region, bucket = path
    if not region:
        raise StartUpError(f"must provide non-empty region {_EXAMPLE}")
    if not bucket:
        raise StartUpError(f"must provide non-empty bucket name {_EXAMPLE}")
    ssl = parse_qs(parts.query).get("ssl") == ["true"]
    host = f"[{host}]" if ":" in host else host
    endpoint = f"{'https' if ssl else 'http'}://{host}{f':{port}' if port else ''}"
    return Place(endpoint, region, bucket, ssl, unquote(parts.username or ""), unquote(parts.password or ""))


async def open_s3(url: str, *, wait_s: float, clock: Clock | None = None) -> S3LogStore:
    """The log store of an address, with its bucket made if need be.

    Args:
        url: The address.
        wait_s: How long to wait for a store that does not answer yet.
        clock: What waits.

    Raises:
        StartUpError: The address is of no use, or the bucket cannot be had.
    """
    place = parse(url)
    stack = contextlib.AsyncExitStack()
    client = await stack.enter_async_context(
        get_session().create_client(
            "s3",
            region_name=place.region,
            endpoint_url=place.endpoint,
            aws_access_key_id=place.access_key,
            aws_secret_access_key=place.secret_key,
            config=AioConfig(**_CONFIG),
        )
    )
    try:
        await _make_bucket(client, place, wait_s, clock or SystemClock())
    except BaseException:
        await stack.aclose()
        raise
    return S3LogStore(client, place.bucket, stack)


class S3LogStore(LogStore):
    """One object for each log.

    A log is uploaded in one request: it is cut at a MiB, and parts of an upload have five at least.
    """

    def __init__(self, client: Any, bucket: str, stack: contextlib.AsyncExitStack) -> None:
        self._client = client
        self._bucket = bucket
        self._stack = stack
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._failing = False

    async def close(self) -> None:
        """Release connections."""
        await self._stack.aclose()

    async def put_logs(self, logs: Sequence[Log]) -> None:
        """Upload logs, some at a time; one that fails does not keep the others."""
        until = asyncio.get_running_loop().time() + (_LIMIT_OF_FAILING_S if self._failing else _LIMIT_S)
        async with asyncio.TaskGroup() as group:
            uploads = [group.create_task(self._put(log, until)) for log in logs]
        failures = [failure for upload in uploads if (failure := upload.result()) is not None]
        if logs:
            self._failing = len(failures) == len(logs)
        if failures:
            reason = str(failures[0]) or "the store does not answer"
            raise LogsLost(len(failures), f"failed to write log, {reason}") from failures[0]

    async def _put(self, log: Log, until: float) -> Exception | None:
        key = _key(log.app_name, log.call_id)
        try:
            async with asyncio.timeout_at(until), self._uploads:
                with span("s3_insert_log"):
                    await self._client.put_object(Bucket=self._bucket, Key=key, Body=log.text, ContentType="text/plain")
        except _FAILURES as exc:
            return exc
        _uploaded.observe(len(log.text))
        return None

    async def get_log(self, app_name: str, call_id: str) -> bytes:
        """Download a log."""
        try:
            with span("s3_get_log"):
                found = await self._client.get_object(Bucket=self._bucket, Key=_key(app_name, call_id))
                async with found["Body"] as body:
                    text: bytes = await body.read()
        except _FAILURES as exc:
            if _code(exc) == "NoSuchKey":
                raise CallLogNotFound from None
            raise StoreUnavailable(f"failed to read log, {exc}") from exc
        _downloaded.observe(len(text))
        return text


async def _make_bucket(client: Any, place: Place, wait_s: float, clock: Clock) -> None:
    _log.info(
        "checking / creating s3 bucket",
        bucketName=place.bucket,
        region=place.region,
        endpoint=place.endpoint,
        access_key_id=place.access_key,
        useSSL=place.ssl,
    )
    begun = told_at = clock.monotonic()
    while (trouble := await _create(client, place)) is not None:
        waited = clock.monotonic() - begun
        if waited >= wait_s:
            raise StartUpError(f"unexpected error creating bucket {place.bucket}: {trouble}") from trouble
        if clock.monotonic() - told_at >= _PROGRESS_S:
            told_at = clock.monotonic()
            _log.warning("waiting for the log store", endpoint=place.endpoint, waited_s=int(waited), error=str(trouble))
        await pause(clock, _RETRY_S)


async def _create(client: Any, place: Place) -> Exception | None:
    """Have the bucket; why not, if the store may only not be ready yet."""
    # us-east-1 is where buckets are made by default, and may not be named
    where = {} if place.region == "us-east-1" else {"LocationConstraint": place.region}
    try:
        await client.create_bucket(Bucket=place.bucket, **({"CreateBucketConfiguration": where} if where else {}))
    except ClientError as exc:
        if _code(exc) in _OURS_ALREADY:
            return None
        if exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _NOT_READY:
            return cast(Exception, exc)
        message = exc.response.get("Error", {}).get("Message") or exc
        raise StartUpError(f"failed to create bucket {place.bucket}: {message}") from exc
    except _NOT_THERE as exc:
        return exc
    except BotoCoreError as exc:
        raise StartUpError(f"unexpected error creating bucket {place.bucket}: {exc}") from exc
    return None


def _code(exc: BaseException) -> str:
    return str(exc.response.get("Error", {}).get("Code", "")) if isinstance(exc, ClientError) else ""


def _key(app_name: str, call_id: str) -> str:
    return f"{base64.urlsafe_b64encode(app_name.encode()).decode().rstrip('=')}/{call_id}"
