"""Errors of the image store. Each text names the image, blob or file, and the cause."""

from __future__ import annotations

from hearth.models.errors import InternalError


class ImageStoreError(InternalError):
    """The image store cannot do what was asked."""


class StoreFailed(ImageStoreError):
    """The disk refused: it is full, or a file cannot be read or written."""


class BlobNotFound(ImageStoreError):
    """The store has no such blob."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"{digest}: no such blob")
        self.digest = digest


class WrongDigest(ImageStoreError):
    """The bytes are not those that a digest names."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"{expected}: the content has the digest {found}")
        self.expected, self.found = expected, found


class InvalidImage(ImageStoreError):
    """A manifest, a configuration or a layer is malformed, unsupported or hostile."""


class ImageTooLarge(InvalidImage):
    """An image has more bytes or more files than the limits allow."""


class RegistryRefused(ImageStoreError):
    """A registry answers a request with an error of its own: 401, 403, 404 and the like."""

    def __init__(self, image: str, status: int, reason: str) -> None:
        super().__init__(f"{image}: the registry answers {status} {reason}".rstrip())
        self.image, self.status, self.reason = image, status, reason


class RegistryNotAllowed(ImageStoreError):
    """A node does not use the registry of an image."""

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(f"{image}: {reason}")
        self.image, self.reason = image, reason


class RegistryAway(ImageStoreError):
    """A registry does not answer, breaks off, or asks for more patience than there is."""

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(f"{image}: the registry cannot be read: {reason}")
        self.image, self.reason = image, reason
