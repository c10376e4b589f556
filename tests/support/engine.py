"""A Docker Engine of a test's own, which may be stopped, killed and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: dockerd in a network namespace of its own: without a bridge it would remove that of the machine's Engine. A listener
#: that the test made in the machine's namespace goes along as systemd hands one over.
_START = 'if [ -n "$1" ]; then exec 3<&"$1"; export LISTEN_FDS=1 LISTEN_PID=$$; fi; shift; exec dockerd "$@"'


class PrivateEngine:
    """dockerd with folders, sockets, containerd and network of its own.

    Args:
        folder: For all it keeps; short, because socket paths are.
        options: More of dockerd's.
        listener: Accepts connections for it besides its unix socket.
    """

    def __init__(self, folder: Path, options: tuple[str, ...] = (), listener: socket.socket | None = None) -> None:
        self.host = f"unix://{folder}/d.sock"
        self._folder = folder
        self._options = options
        self._listener = listener
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = [
            f"--host={self.host}",
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/d.pid",
            "--iptables=false",
            "--bridge=none",
            *self._options,
        ]
        fds = () if self._listener is None else (self._listener.fileno(),)
        if fds:
            options.append("--host=fd://")
        (self._folder / "d.pid").unlink(missing_ok=True)
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            ["unshare", "--net", "bash", "-c", _START, "engine", "".join(map(str, fds)), *options],
            stdout=log,
            stderr=log,
            pass_fds=fds,
        )
        log.close()
        deadline = time.monotonic() + 60
        while self.docker("version").returncode != 0:
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the private Engine does not answer"
            time.sleep(0.05)

    def docker(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """One command of docker's own client."""
        return subprocess.run(["docker", "--host", self.host, *arguments], input=stdin, capture_output=True)

    def copy_image(self, name: str) -> None:
        """Bring an image over from this machine's Engine."""
        saved = subprocess.run(["docker", "save", name], capture_output=True, check=True).stdout
        loaded = self.docker("load", stdin=saved)
        assert loaded.returncode == 0, loaded.stderr

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT..."""
        assert self._process is not None
        self._process.send_signal(number)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It accepts connections, and answers nothing."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it and its containerd without a chance to tidy up. The containers' own processes live on."""
        self.signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._kill_containerd()

    def end(self) -> None:
        """End it with all that it started."""
        if self._process is not None and self._process.poll() is None:
            ids = self.docker("ps", "-aq").stdout.decode().split()
            if ids:
                self.docker("rm", "-f", *ids)
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self._kill_containerd()

    def _kill_containerd(self) -> None:
        """It outlives a killed dockerd, and the next dockerd does not find its way to it."""
        pid = self._folder / "exec/containerd/containerd.pid"
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pid.read_text()), signal.SIGKILL)
            pid.unlink()


@contextlib.contextmanager
def private_engine(*options: str, listener: socket.socket | None = None) -> Iterator[PrivateEngine]:
    """An Engine that serves until the end of the block. Skips the test where none can be started."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.skip("a private Engine needs dockerd and root")
    folder = Path(tempfile.mkdtemp(prefix="hde-"))
    engine = PrivateEngine(folder, options, listener)
    try:
        engine.start()
        yield engine
    finally:
        engine.end()
        subprocess.run(["umount", "--lazy", "--recursive", folder / "data"], capture_output=True)  # dockerd leaves it
        shutil.rmtree(folder, ignore_errors=True)
