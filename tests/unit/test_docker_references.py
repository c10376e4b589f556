"""Image references and registries' addresses, row by row (drivers specification 2.6)."""

from __future__ import annotations

import pytest

from hearth.images.registry.references import InvalidReference, digest_at, parse
from hearth.models.registry_login import registry_of

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "registry", "path", "tag", "digest"),
    [
        ("a", "docker.io", "library/a", "latest", None),
        ("a:t", "docker.io", "library/a", "t", None),
        ("a/b", "docker.io", "a/b", "latest", None),
        ("a/b/c:1", "docker.io", "a/b/c", "1", None),
        ("localhost/a", "localhost", "a", "latest", None),
        ("localhost:5000/a", "localhost:5000", "a", "latest", None),
        ("h.example/a:1.0", "h.example", "a", "1.0", None),
        ("h:5000/a/b/c:t", "h:5000", "a/b/c", "t", None),
        ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", "latest", None),
        ("[::1]:5000/a", "[::1]:5000", "a", "latest", None),
        ("a/b.c:1", "docker.io", "a/b.c", "1", None),
        ("docker.io/a", "docker.io", "library/a", "latest", None),
        ("hub.docker.com/a/b", "docker.io", "a/b", "latest", None),
        ("index.docker.io/a/b:t", "docker.io", "a/b", "t", None),
        (f"a@{DIGEST}", "docker.io", "library/a", None, DIGEST),
        (f"h:5000/a/b/c:t@{DIGEST}", "h:5000", "a/b/c", None, DIGEST),
    ],
)
def test_a_reference_is_read(text: str, registry: str, path: str, tag: str | None, digest: str | None) -> None:
    found = parse(text)
    assert (found.registry, found.path, found.tag, found.digest) == (registry, path, tag, digest)
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", "A", "a/", "/a", "a//b", "a b", "a@sha256:1", "a@", "h:x/a", "-h.example/a", "a:b:c", "../a"],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse(text)


@pytest.mark.parametrize(
    ("address", "registry"),
    [
        ("", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("https://hub.docker.com", "docker.io"),
        ("R.example", "r.example"),
        ("http://r.example:5000/v2/", "r.example:5000"),
        ("r.example/v1", "r.example"),
        ("https://r.example/team", "r.example/team"),
        ("https://r.example@evil.example", "r.example@evil.example"),
        ("https://index.docker.io.evil.example/v1/", "index.docker.io.evil.example"),
    ],
)
def test_an_address_means_one_registry(address: str, registry: str) -> None:
    assert registry_of(address) == registry


def test_the_digest_of_an_image_is_that_of_the_repository_that_is_asked_for() -> None:
    one, two = "sha256:" + "1" * 64, "sha256:" + "2" * 64
    names = [f"registry.example/a/f@{one}", f"busybox@{two}", "<none>@<none>"]
    assert digest_at(parse("registry.example/a/f:1"), names) == one
    assert digest_at(parse("docker.io/library/busybox"), names) == two
    assert digest_at(parse("registry.example/b/f:1"), names) == ""
