"""The errors of API v2 that version 1 does not have, with their exact messages."""

from __future__ import annotations

from hearth.models.errors import ApiError, BadRequest, Conflict, NotFound
from hearth.models.function import MAX_CONCURRENCY

#: Characters of a trigger's source, as its column holds them.
MAX_SOURCE_LENGTH = 256


class MethodNotAllowed(ApiError):
    """The path exists, but not with this method."""

    status = 405

    def __init__(self, method: str, path: str) -> None:
        super().__init__(f"Method not allowed: {method} {path}")


class InvalidCursor(BadRequest):
    message = "Invalid cursor"


class NeverFits(BadRequest):
    """A function asks for more than the whole node has."""

    message = "Requested CPU/Memory cannot be allocated"


# --- annotations ------------------------------------------------------------------------------------------------------


class InvalidAnnotationKey(BadRequest):
    message = "Invalid annotation key, annotation keys must be non-empty ascii strings excluding whitespace"


class InvalidAnnotationKeyLength(BadRequest):
    message = "Invalid annotation key length, annotation keys may not be larger than 128 bytes"


class InvalidAnnotationValue(BadRequest):
    message = "Invalid annotation value, annotation values may only be non-empty strings, numbers, objects, or arrays"


class InvalidAnnotationValueLength(BadRequest):
    message = (
        "Invalid annotation value length, annotation values may not be larger than 512 bytes when serialized as JSON"
    )


class AnnotationOfFns(BadRequest):
    """An app or a trigger has an annotation that works for fns only."""

    def __init__(self, key: str) -> None:
        super().__init__(f"annotation {key} is for fns only. An app has its auth in /v1/apps")


class TooManyAnnotations(BadRequest):
    message = "Invalid annotation change, new key(s) exceed maximum permitted number of annotations keys (100)"


# --- apps -------------------------------------------------------------------------------------------------------------


class AppIdProvided(BadRequest):
    message = "App ID cannot be supplied on create"


class AppIdMismatch(BadRequest):
    message = "App ID in path does not match ID in body"


class AppMissingName(BadRequest):
    message = "Missing Name"


class AppTooLongName(BadRequest):
    message = "App name must be 255 characters or less"


class AppInvalidShape(BadRequest):
    message = "Invalid app shape"


class InvalidSyslogUrl(BadRequest):
    """The syslog URL of an app is none."""

    def __init__(self, url: str, problem: str) -> None:
        super().__init__(f'invalid syslog url: "{url}" {problem}')


# --- fns --------------------------------------------------------------------------------------------------------------


class FnIdProvided(BadRequest):
    message = "ID cannot be provided for Fn creation"


class FnIdMismatch(BadRequest):
    message = "Fn ID in path does not match that in body"


class FnMissingName(BadRequest):
    message = "Missing Fn name"


class FnTooLongName(BadRequest):
    message = "Fn name must be 255 characters or less"


class FnInvalidName(BadRequest):
    message = "name must be a valid string"


class FnMissingAppId(BadRequest):
    message = "Missing AppID on Fn"


class FnMissingImage(BadRequest):
    message = "Missing image on Fn"


class FnInvalidMemory(BadRequest):
    message = "memory value is out of range. It should be between 0 and 8192"


class FnInvalidConcurrency(BadRequest):
    message = f"annotation hearth/concurrency is out of range. It should be an integer from 1 to {MAX_CONCURRENCY}"


class FnInvalidAuth(BadRequest):
    message = 'annotation hearth/auth must be "open" or "token" (without it: as the app says)'


class FnInvalidTimeout(BadRequest):
    message = "timeout value is out of range, must be between 0 and 300"


class FnInvalidIdleTimeout(BadRequest):
    message = "idle_timeout value is out of range, must be between 0 and 3600"


class FnAlreadyExists(Conflict):
    message = "Fn with specified name already exists"


class FnNotFound(NotFound):
    message = "Fn not found"


# --- triggers ---------------------------------------------------------------------------------------------------------


class TriggerIdProvided(BadRequest):
    message = "ID cannot be provided for Trigger creation"


class TriggerIdMismatch(BadRequest):
    message = "ID in path does not match ID in body"


class TriggerCreatedAtProvided(BadRequest):
    message = "Trigger Created At Provided for Create"


class TriggerUpdatedAtProvided(BadRequest):
    message = "Trigger ID Provided for Create"  # Fn's own text


class TriggerMissingName(BadRequest):
    message = "Missing name on Trigger"


class TriggerTooLongName(BadRequest):
    message = "Trigger name must be 255 characters or less"


class TriggerInvalidName(BadRequest):
    message = "Invalid name for Trigger"


class TriggerMissingAppId(BadRequest):
    message = "Missing App ID on Trigger"


class TriggerMissingFnId(BadRequest):
    message = "Missing Fn ID on Trigger"


class TriggerForeignFn(BadRequest):
    message = "Invalid Fn ID - not owned by specified app"


class TriggerUnknownType(BadRequest):
    message = "Trigger Type Not Supported"


class TriggerMissingSource(BadRequest):
    message = "Missing Trigger Source"


class TriggerInvalidSource(BadRequest):
    message = "Missing Trigger Source Prefix '/'"


class TriggerTooLongSource(BadRequest):
    message = f"Trigger source must be {MAX_SOURCE_LENGTH} characters or less"


class TriggerAlreadyExists(Conflict):
    message = "Trigger already exists"


class TriggerSourceTaken(Conflict):
    message = "Trigger with the same type and source exists on this app"


class TriggerNotFound(NotFound):
    message = "Trigger not found"
