"""Rules of iptables for the bridge of functions, in chains of Hearth's own.

The Engine sends what leaves a bridge through the chain ``DOCKER-USER`` first, and leaves that chain alone::

    DOCKER-USER -> hearth-fn       to other machines: refuses private networks
    INPUT       -> hearth-fn-in    to this machine: refuses all but the nameserver and addresses allowed by themselves
                -> hearth-fn-calls     except the ports of nodes, which answer function calls

All nodes that use one bridge have the same rules, except for their port. A node holds a shared lock on its network
namespace while it lives: the node that gets the lock alone is the last, and removes the chains of bridges that have no
containers. Everything here blocks: for a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import itertools
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hearth.models.addresses import refused

Network = ipaddress.IPv4Network

#: SIOCGIFADDR, netdevice(7).
_GET_ADDRESS: Final = 0x8915
_PROGRAMS: Final = ("iptables", "iptables-nft", "iptables-legacy")
_LIMIT_S: Final = 10.0
_FILTERS_BRIDGES: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
#: The Engine gives containers the second one where the first names systemd's resolver on loopback.
_RESOLVERS: Final = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_NAMESERVER: Final = re.compile(r"^nameserver[ \t]+(\d+\.\d+\.\d+\.\d+)[ \t]*$", re.MULTILINE)
_NAMESPACE: Final = "/proc/self/ns/net"
_REFUSE: Final = "-j REJECT --reject-with icmp-admin-prohibited"
_KNOWN: Final = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
_WAY: Final = "-A FORWARD -j DOCKER-USER"
_KINDS: Final = ("udp", "tcp")
_HOOK: Final = re.compile(r"^-A INPUT -i (?P<bridge>\S+) -j (?P=bridge)-in$")


class OutOfReach(Exception):
    """The firewall of the Engine's machine cannot be read or changed from here; the text says why."""


class NotClosed(Exception):
    """Functions would reach what they must not; the text says why."""


class Firewall:
    """The rules for one bridge.

    Args:
        bridge: The interface of the Engine's network.
        allowed: The private networks that functions may reach.
        port: Where this node answers function calls to addresses of the machine; 0: nowhere.
    """

    def __init__(self, bridge: str, allowed: Sequence[Network] = (), port: int = 0) -> None:
        self._bridge = bridge
        self._allowed = allowed
        self._call = f"-p tcp -m tcp --dport {port} -j RETURN" if port else ""
        self._program = ""
        self._lock: int | None = None

    def apply(self, backend: str, gateways: Sequence[str]) -> None:
        """Keep functions from private networks and from this machine.

        Args:
            backend: What filters, by the Engine; empty: iptables.
            gateways: The addresses of the Engine's bridge.

        Raises:
            OutOfReach: This process cannot look at the rules. Nothing has changed.
            NotClosed: The rules do not work here.
        """
        self._program, rules = separating_rules(self._bridge, backend, gateways)
        if self._lock is None:
            self._lock = os.open(_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_SH)  # waits for a node that removes the chains at this moment
            rules = _rules(self._program) or []
        if _WAY not in rules:
            raise NotClosed("the Docker Engine does not use the chain DOCKER-USER")
        _restore(self._program, self._form(rules))

    def is_applied(self) -> bool:
        """Return whether the rules still lead to the chains: another program may have reset the firewall."""
        rules = _rules(self._program) or []
        return all(rule in rules for rule in (_WAY, *self._hooks()))

    def remove(self) -> None:
        """Close the port of this node; remove the chains of all bridges without containers if it is the last node."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        with contextlib.suppress(NotClosed):
            rules = _rules(self._program) or []
            if self._call and f"-A {self._bridge}-calls {self._call}" in rules:
                _restore(self._program, [f"-D {self._bridge}-calls {self._call}"])
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _restore(self._program, list(_removal(_rules(self._program) or [])))
        os.close(lock)

    def _form(self, rules: Sequence[str]) -> Iterator[str]:
        """Yield the lines that make the chains. Those that exist are replaced in one step, except for the ports."""
        bridge = self._bridge
        inward, calls = f"{bridge}-in", f"{bridge}-calls"
        resolvers = [f"-d {address} -p {kind} --dport 53 -j RETURN" for address in nameservers() for kind in _KINDS]
        yield f":{bridge} - [0:0]"
        yield f":{inward} - [0:0]"
        if f"-N {calls}" not in rules:
            yield f":{calls} - [0:0]"
            yield f"-A {calls} {_REFUSE}"
        for chain in (bridge, inward):
            yield from (f"-A {chain} {rule}" for rule in (_KNOWN, *resolvers))
        yield from (f"-A {bridge} -d {network} {_REFUSE}" for network in refused(self._allowed))
        alone = [network for network in self._allowed if network.prefixlen == network.max_prefixlen]
        yield from (f"-A {inward} -d {network} -j RETURN" for network in alone)
        yield f"-A {inward} -g {calls}"  # whose end is then the end of both
        for hook in self._hooks():
            if hook not in rules:
                chain, _, rule = hook.removeprefix("-A ").partition(" ")
                yield f"-I {chain} 1 {rule}"

    def _hooks(self) -> Iterator[str]:
        """Yield the rules in chains that are not only this node's."""
        yield f"-A DOCKER-USER -i {self._bridge} -j {self._bridge}"
        yield f"-A INPUT -i {self._bridge} -j {self._bridge}-in"
        if self._call:
            yield f"-A {self._bridge}-calls {self._call}"


def separating_rules(bridge: str, backend: str, gateways: Sequence[str]) -> tuple[str, list[str]]:
    """Return the program whose rules keep containers on a bridge apart, and all its rules.

    An Engine that was started with ``--iptables=false`` creates the same network, and filters nothing.

    Raises:
        OutOfReach: Only root on the Engine's own machine can look.
        NotClosed: Containers reach each other.
    """
    if "nftables" in backend:
        raise OutOfReach("the Docker Engine filters with nftables, not with iptables")
    if os.geteuid() != 0:
        raise OutOfReach("the node does not run as root")
    if _address_of(bridge) not in gateways:
        raise OutOfReach("the Docker Engine is on another machine, or in another network namespace")
    try:
        filtered = _FILTERS_BRIDGES.read_text().strip() == "1"
    except OSError:
        filtered = False
    if not filtered:
        raise NotClosed("the kernel does not filter bridges (br_netfilter), so containers would reach each other")
    looked = False
    for program in _PROGRAMS:
        rules = _rules(program)
        looked |= rules is not None
        if any(_drops_between(rule.split(), bridge) for rule in rules or ()):
            return program, rules or []
    if not looked:
        raise OutOfReach("iptables cannot be run here")
    raise NotClosed("the Docker Engine does not keep containers apart (it may run with --iptables=false)")


def nameservers() -> list[str]:
    """Return the resolvers of this machine that containers ask themselves; those on loopback the Engine asks."""
    found: dict[str, None] = {}
    for path in _RESOLVERS:
        with contextlib.suppress(OSError):
            found |= dict.fromkeys(_NAMESERVER.findall(path.read_text(errors="replace")))
    return [address for address in found if not address.startswith("127.")]


def _removal(rules: Sequence[str]) -> Iterator[str]:
    """Yield the lines that remove the chains of bridges without containers."""
    for bridge in {hook["bridge"] for rule in rules if (hook := _HOOK.match(rule)) is not None}:
        if any(Path(f"/sys/class/net/{bridge}/brif").glob("*")):
            continue  # of a node that was killed: its containers stay behind the walls
        chains = [bridge, f"{bridge}-in", f"{bridge}-calls"]
        yield from (
            f"-D {rule.removeprefix('-A ')}" for rule in rules if rule.endswith((f"-j {bridge}", f"-j {bridge}-in"))
        )
        yield from (f"-F {chain}" for chain in chains)
        yield from (f"-X {chain}" for chain in chains)


def _rules(program: str) -> list[str] | None:
    """Return the rules of the filter table, as ``-S`` shows them; ``None`` where they cannot be read."""
    if (path := shutil.which(program)) is None:
        return None
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([path, "-w", "5", "-S"], capture_output=True, text=True, timeout=_LIMIT_S)
        return done.stdout.splitlines() if done.returncode == 0 else None
    return None


def _restore(program: str, lines: Iterator[str] | Sequence[str]) -> None:
    """Change the filter table by these lines, all or none.

    Raises:
        NotClosed: It does not take them.
    """
    command = [f"{program}-restore", "-w", "5", "--noflush"]
    text = "\n".join(("*filter", *lines, "COMMIT", ""))
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=_LIMIT_S)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NotClosed(f"the firewall cannot be changed: {exc}") from exc
    if done.returncode:
        raise NotClosed(f"the firewall cannot be changed: {done.stderr.strip()}")


def _address_of(interface: str) -> str:
    """Return the address of an interface of this machine; empty where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _GET_ADDRESS, struct.pack("256s", interface.encode()))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])


def _drops_between(rule: Sequence[str], bridge: str) -> bool:
    return {("-i", bridge), ("-o", bridge), ("-j", "DROP")} <= set(itertools.pairwise(rule))
