"""The images of bundles: composed by builds, unpacked when a container needs them.

What ``hearth build`` makes has no root file system: the label ``io.hearth.base`` says that it runs on the machine's
own. Its files lie in ``function`` and ``packages``; further labels say which of its folders come first in which
variable, and which Python it needs: each node runs it with its own, where that lies. An image without the label
brings everything.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hearth.drivers.local.bundle import (
    BUILDING,
    FILES,
    LAYERS,
    MANIFEST,
    ROOT,
    Bundle,
    Manifest,
    builds,
    digest_of,
    exclusive,
    folder_name,
    index_name,
    load,
    locate,
    make_folder,
    pinned_name,
)
from hearth.drivers.local.system_images import complete, system_of
from hearth.host import machine
from hearth.images.documents import (
    CONFIG_TYPE,
    Config,
    Descriptor,
    RootFs,
    RunConfig,
    digest_of_bytes,
    encode,
)
from hearth.images.documents import Manifest as ImageManifest
from hearth.images.errors import InvalidImage
from hearth.images.layout import Image, ImageStore
from hearth.images.pack import Layer, write_layer
from hearth.images.registry.references import has_registry
from hearth.images.repositories import Repository, is_repository
from hearth.images.trees import Layers, make_tree
from hearth.images.unpack import Limits

BASE: Final = "io.hearth.base"
HOST: Final = "host"
_PATHS: Final = "io.hearth.paths"
_PYTHON: Final = "io.hearth.python"
#: The version of this Python that compiled modules and requirements depend on.
_VERSION: Final = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Where the installed requirements of a bundle's function are.
PACKAGES: Final = "packages"
#: Holds the name of the folder once the builds of earlier releases have images.
_IMPORTED: Final = "imported"


def interpreter() -> str:
    """Return the Python that runs bundles: not a virtual environment's, which has other packages to look through."""
    return str(Path(sys.base_prefix, "bin", f"python{_VERSION}"))


def image_store(bundles: Path) -> ImageStore:
    """Return the store with the images of these bundles; runners that share the bundles share it, too."""
    return ImageStore(bundles.resolve().with_name("images"))


def compose(store: ImageStore, manifest: Manifest, layers: Sequence[Layer]) -> Image:
    """Store the configuration of an image with these layers, and return the image, which is not stored yet. Blocks.

    Raises:
        StoreFailed: The disk refused.
    """
    labels = {BASE: HOST}
    cmd = list(manifest.cmd)
    if manifest.roots == [sys.base_prefix]:
        labels[_PYTHON] = _VERSION
        if cmd[0] == interpreter():
            cmd[0] = f"python{_VERSION}"
    if manifest.paths:
        labels[_PATHS] = _json(manifest.paths)
    run = RunConfig(
        entrypoint=cmd,
        env=[f"{name}={value}" for name, value in sorted(manifest.env.items())],
        working_dir=f"/{FILES}",
        labels=labels,
    )
    rootfs = RootFs(diff_ids=[layer.diff_id for layer in layers])
    config = Config(architecture=machine.architecture(), os="linux", config=run, rootfs=rootfs)
    data = encode(config)
    described = Descriptor(media_type=CONFIG_TYPE, digest=store.blobs.add(data), size=len(data))
    composed = ImageManifest(config=described, layers=[layer.descriptor for layer in layers])
    return Image(digest=digest_of_bytes(encode(composed)), manifest=composed, config=config)


def manifest_of(image: Image) -> Manifest:
    """Return how a bundle runs.

    Raises:
        InvalidImage: It cannot run on this machine.
    """
    labels = image.config.labels
    run = image.config.config or RunConfig()
    built_for, here = f"{image.config.os}/{image.config.architecture}", f"linux/{machine.architecture()}"
    if built_for != here:
        raise InvalidImage(f"{image.digest}: built for {built_for}; this machine is {here}")
    cmd = [*(run.entrypoint or ()), *(run.cmd or ())]
    if not cmd:
        raise InvalidImage(f"{image.digest}: has neither an entrypoint nor a command")
    env = dict(_variable(text, image.digest) for text in run.env or ())
    if labels.get(BASE) != HOST:
        return Manifest(cmd=cmd, env=env, content=image.digest, system=system_of(run, image.digest))
    try:
        paths = msgspec.json.decode(labels.get(_PATHS, "{}"), type=dict[str, list[str]])
    except msgspec.DecodeError as exc:
        raise InvalidImage(f"{image.digest}: malformed label: {exc}") from exc
    roots = []
    if (version := labels.get(_PYTHON)) is not None:
        if version != _VERSION:
            raise InvalidImage(f"{image.digest}: built for Python {version}; this node has {_VERSION}; build it again")
        roots.append(sys.base_prefix)
        if cmd[0] == f"python{version}":
            cmd[0] = interpreter()
    return Manifest(cmd=cmd, env=env, paths=paths, roots=roots, content=image.digest)


def name_of(image: str) -> str:
    """Return the name that a reference has in the index of a store."""
    return index_name(image) or pinned_name(image)


def resolve(store: ImageStore, image: str) -> str | None:
    """Return the digest that a reference means in a store; ``None`` if it has no such image. Blocks shortly.

    Raises:
        ImageStoreError: The store cannot be read.
    """
    if (pinned := digest_of(image)) and store.blobs.path(pinned).exists():
        return pinned
    name = name_of(image)
    return store.resolve(name) if name else None


def is_of_registry(bundles: Path, image: str) -> bool:
    """Return whether a reference names a registry, and no repository of this node has that name. Blocks shortly."""
    if locate(bundles, image) is None or not has_registry(image):
        return False
    name = image.partition("@")[0]
    repository = name if ":" not in name.rpartition("/")[2] else name.rpartition(":")[0]
    return not (is_repository(repository) and Repository(image_store(bundles), repository).exists)


def is_pinned_here(bundles: Path, image: str) -> bool:
    """Return whether a reference has a digest, and its image is here: what it means cannot change. Blocks shortly."""
    if not digest_of(image):
        return False
    place = locate(bundles, image)
    return (place is not None and load(place) is not None) or resolve(image_store(bundles), image) is not None


def digest(bundles: Path, image: str) -> str | None:
    """Return the digest that a reference means now; ``None`` if there is no such image. Blocks shortly.

    Raises:
        ImageStoreError: The store cannot be read.
        OSError: The bundle cannot.
    """
    if locate(bundles, image) is None:
        return None
    if (meant := resolve(image_store(bundles), image)) is not None:
        return meant
    folder = locate(bundles, image)
    found = None if folder is None else load(folder)
    return None if found is None else found.manifest.content


def digests(bundles: Path, images: Collection[str], without: Collection[Path] = ()) -> set[str]:
    """Return the digests of the images in the store that these references mean, and of all that is unpacked. Blocks.

    Args:
        bundles: The folder of bundles.
        images: References.
        without: Folders of bundles that do not count.

    Raises:
        ImageStoreError: The store cannot be read.
    """
    store = image_store(bundles)
    named = {entry.name: entry.digest for entry in store.entries()}
    found = {digest_of(image) for image in images}
    found |= {named.get(name_of(image), "") for image in images}
    if bundles.is_dir():
        for name, folder in builds(bundles):
            if folder in without:
                continue
            content = folder.name.removeprefix(".").replace("-", ":", 1)
            found |= {content, named.get(f"{name}@{content}", "")}
    return found - {""}


def find(bundles: Path, image: str, limits: Limits | None = None) -> Bundle | None:
    """Return the bundle that a reference means, unpacked if need be; ``None`` if there is no such image. Blocks.

    Raises:
        ImageStoreError: It cannot be unpacked, or cannot run on this machine.
        OSError: The bundle cannot be read.
    """
    target = locate(bundles, image)
    if target is None:
        return None
    if digest_of(image) and (found := load(target)) is not None:
        return found
    store = image_store(bundles)
    if (meant := resolve(store, image)) is None:
        return load(target)
    place = target.with_name(folder_name(meant))
    return load(place) or unpack(bundles, store, store.image(meant), place, limits)


def unpack(bundles: Path, store: ImageStore, image: Image, place: Path, limits: Limits | None = None) -> Bundle:
    """Unpack an image to the folder of its bundle. Blocks.

    Raises:
        ImageStoreError: It cannot be unpacked, or cannot run on this machine.
        OSError: The disk refused.
    """
    made = make(bundles, store, image, place, limits)
    try:
        return Bundle(put_in_place(made.folder, place), made.manifest)
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)


def make(bundles: Path, store: ImageStore, image: Image, place: Path, limits: Limits | None = None) -> Bundle:
    """Make a bundle beside its place, the caller's to put there or remove. Blocks.

    Raises:
        ImageStoreError: It cannot be unpacked, or cannot run on this machine.
        OSError: The disk refused.
    """
    manifest = manifest_of(image)
    make_folder(bundles)
    for folder in [parent for parent in reversed(place.parents) if parent != bundles and bundles in parent.parents]:
        folder.mkdir(exist_ok=True)
        folder.chmod(0o711)
    layers = Layers(store, bundles / LAYERS, limits).unpack(image)
    made = Path(tempfile.mkdtemp(prefix=BUILDING, dir=place.parent))
    try:
        made.chmod(0o755)
        if manifest.system is None:
            make_tree(layers, made)
            for name in (FILES, PACKAGES):
                _make_readable(made / name)
        else:
            (made / ROOT).mkdir()
            (made / ROOT).chmod(0o755)
            make_tree(layers, made / ROOT)
            manifest.system = complete(made / ROOT, manifest.system, image.digest)
        _write_manifest(made, manifest)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return Bundle(made, manifest)


def put_in_place(made: Path, place: Path) -> Path:
    """Put a finished bundle in its place, unless the same one is there; return its place. Blocks."""
    with exclusive(place.parent):
        if (place / MANIFEST).exists():
            os.utime(place)  # it is in use again: a removal of old builds leaves it
        else:
            shutil.rmtree(place, ignore_errors=True)  # the rest of an interrupted removal
            made.rename(place)
    return place.resolve()


def import_builds(bundles: Path) -> int:
    """Make images of the builds of earlier releases, once; return how many. Blocks.

    Their folders stay, so everything runs as before. An image gets the name ``name@sha256:...`` that routes know the
    build by.

    Raises:
        ImageStoreError: The disk refused.
        OSError: A build cannot be read.
    """
    if not bundles.is_dir():
        return 0
    store = image_store(bundles)
    if (store.root / _IMPORTED).exists():
        return 0
    store.make()
    count = 0
    for name, folder in builds(bundles):
        found = load(folder)
        alias = f"{name}@{folder.name.removeprefix('.').replace('-', ':', 1)}"
        if found is None or store.blobs.path(alias.partition("@")[2]).exists() or store.resolve(alias) is not None:
            continue
        layers = [write_layer(store, folder, [part]) for part in (PACKAGES, FILES) if (folder / part).is_dir()]
        image = compose(store, found.manifest, layers)
        tags = [
            f"{name}:{link.name}"
            for link in folder.parent.iterdir()
            if link.is_symlink() and link.resolve() == folder.resolve()
        ]
        store.put_manifest(encode(image.manifest), [alias, *tags])
        count += 1
    (store.root / _IMPORTED).touch(0o600)
    return count


def _make_readable(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        folder.chmod(0o755)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    file = folder / MANIFEST
    file.unlink(missing_ok=True)  # an image may bring one of its own, or a link that leads elsewhere
    file.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    file.chmod(0o644)


def _variable(text: str, name: str) -> tuple[str, str]:
    variable, equals, value = text.partition("=")
    if not variable or not equals:
        raise InvalidImage(f"{name}: {text!r} is no variable")
    return variable, value


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
