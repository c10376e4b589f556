"""Logs as objects in any store that speaks S3: it needs to know put, get, and making a bucket.

The sweep of old logs needs list and delete, too; ``FN_SWEEP_LOGSTORE=false`` does without.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import datetime as dt
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as EndpointError

from hearth.aio.clock import Clock, SystemClock, pause
from hearth.models.errors import CallLogNotFound, StartUpError, StoreUnavailable
from hearth.models.log_reader import PIECE_BYTES, LogReader
from hearth.stores.logs.base import Log, LogsLost, LogStore
from hearth.telemetry.logs import get_logger
from hearth.telemetry.node import Telemetry

#: Uploads at a time; each holds one log, which the recorder has in memory anyway.
_UPLOADS: Final = 16
#: Objects that one request lists, and deletions at a time: uploads need the other connections.
PAGE: Final = 1_000
_DELETIONS: Final = 4
#: Seconds that the logs of a batch may take, and those of the next one where that was not enough: the records of later
#: calls wait for it.
LIMIT_S: Final = 10.0
LIMIT_OF_FAILING_S: Final = 1.0
_PROGRESS_S: Final = 5.0
_RETRY_S: Final = 0.5
_EXAMPLE: Final = "in path of s3 api url. e.g. s3://s3.com/us-east-1/my_bucket"
#: Statuses from here on are of a store that has trouble of its own.
_NOT_READY: Final = 500
_OURS_ALREADY: Final = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
#: What may be a log of ours: an app's name in base64, and the id of a call. Nothing else in a bucket is ever removed.
_KEY: Final = re.compile(r"[A-Za-z0-9_-]+/[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)
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


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The parts of an address: ``s3://access_key:secret_key@host[:port]/region/bucket[?ssl=true]``."""

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


async def open_s3(url: str, *, wait_s: float, telemetry: Telemetry, clock: Clock | None = None) -> S3LogStore:
    """Open the log store of an address; create its bucket if it is missing.

    Args:
        url: The address.
        wait_s: How long to wait for a store that does not answer yet.
        telemetry: Counts and times what the store does.
        clock: What waits.

    Raises:
        StartUpError: The address is invalid, or the bucket is not available.
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
    return S3LogStore(client, place.bucket, stack, telemetry)


class S3LogStore(LogStore):
    """One object for each log.

    A log is uploaded in one request: it is cut at a MiB, and parts of an upload have five at least.
    """

    def __init__(self, client: Any, bucket: str, stack: contextlib.AsyncExitStack, telemetry: Telemetry) -> None:
        self._client = client
        self.bucket = bucket
        self._stack = stack
        self._span = telemetry.tracing.span
        self._uploaded = telemetry.metrics.histogram("fn_s3_log_upload_size")
        self._downloaded = telemetry.metrics.histogram("fn_s3_log_download_size")
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._failing = False

    async def close(self) -> None:
        """Release connections."""
        await self._stack.aclose()

    async def put_logs(self, logs: Sequence[Log]) -> None:
        """Upload logs, some at a time; one that fails does not keep the others."""
        until = asyncio.get_running_loop().time() + (LIMIT_OF_FAILING_S if self._failing else LIMIT_S)
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
                with self._span("s3_insert_log"):
                    await self._client.put_object(Bucket=self.bucket, Key=key, Body=log.text, ContentType="text/plain")
        except _FAILURES as exc:
            return exc
        self._uploaded.observe(len(log.text))
        return None

    async def get_log(self, app_name: str, call_id: str) -> LogReader:
        """Open a log; it is downloaded as it is read."""
        try:
            with self._span("s3_get_log"):
                found = await self._client.get_object(Bucket=self.bucket, Key=_key(app_name, call_id))
        except _FAILURES as exc:
            if _code(exc) == "NoSuchKey":
                raise CallLogNotFound from None
            raise StoreUnavailable(f"failed to read log, {exc}") from exc
        return self._pieces(found["Body"])

    async def _pieces(self, body: Any) -> LogReader:
        size = 0
        try:
            async with body:
                async for piece in body.iter_chunks(PIECE_BYTES):
                    size += len(piece)
                    yield piece
        except _FAILURES as exc:
            raise StoreUnavailable(f"failed to read log, {exc}") from exc
        self._downloaded.observe(size)

    async def remove_logs(self, before: dt.datetime, *, dry_run: bool = False) -> AsyncIterator[int]:
        """Remove logs that were stored before a time, one page of the bucket's listing in each step."""
        async for page in self._listed():
            keys = [found["Key"] for found in page if found["LastModified"] < before]
            if keys and not dry_run:
                await self._delete(keys)
            yield len(keys)

    async def time_beyond(self, log_bytes: int) -> dt.datetime | None:
        """Add up sizes by the minute in which logs were stored: a bucket lists its objects by name, not by time."""
        sizes: Counter[dt.datetime] = Counter()
        async for page in self._listed():
            for found in page:
                sizes[found["LastModified"].replace(second=0, microsecond=0)] += found["Size"]
        for minute in sorted(sizes, reverse=True):
            log_bytes -= sizes[minute]
            if log_bytes < 0:
                return minute + dt.timedelta(minutes=1)
        return None

    async def stored_bytes(self, app_name: str, most: int) -> int:
        """Add up sizes in the listing of the app's objects."""
        size = 0
        async for page in self._listed(_key(app_name, "")):
            size += sum(found["Size"] for found in page)
            if size >= most:
                break
        return size

    async def _listed(self, prefix: str = "") -> AsyncIterator[list[Any]]:
        """Yield what the bucket holds of ours, page by page."""
        start: dict[str, str] = {"Prefix": prefix}
        while True:
            try:
                with self._span("s3_list_logs"):
                    page = await self._client.list_objects_v2(Bucket=self.bucket, MaxKeys=PAGE, **start)
            except _FAILURES as exc:
                raise StoreUnavailable(f"failed to list logs, {exc}") from exc
            yield [found for found in page.get("Contents", ()) if _KEY.fullmatch(found["Key"])]
            if not page.get("IsTruncated") or not page.get("NextContinuationToken"):
                return
            start = {"Prefix": prefix, "ContinuationToken": page["NextContinuationToken"]}

    async def _delete(self, keys: Sequence[str]) -> None:
        """Delete objects one by one, some at a time: not every store can delete many in one request."""
        limit = asyncio.Semaphore(_DELETIONS)

        async def delete(key: str) -> None:
            async with limit:
                await self._client.delete_object(Bucket=self.bucket, Key=key)

        deletions = await asyncio.gather(*[delete(key) for key in keys], return_exceptions=True)
        for failure in deletions:
            if isinstance(failure, _FAILURES):
                raise StoreUnavailable(f"failed to remove log, {failure}") from failure
            if isinstance(failure, BaseException):
                raise failure


async def _make_bucket(client: Any, place: Place, wait_s: float, clock: Clock) -> None:
    _log.info(
        "checking / creating s3 bucket",
        bucketName=place.bucket,
        region=place.region,
        endpoint=place.endpoint,
        access_key_id=place.access_key,
        useSSL=place.ssl,
    )
    started = told_at = clock.monotonic()
    while (trouble := await _create(client, place)) is not None:
        waited = clock.monotonic() - started
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
