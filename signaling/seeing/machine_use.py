"""How much of the machine is used up: disk, files, memory, UDP ports. Reads small files of the system; blocks."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mediaserver.process import process_use
from signaling.seeing.readiness import Machine

UNLIMITED_BYTES = 1 << 60
"""Control groups of the first version write a number like this where there is no limit."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look.

    Args:
        data_dir: where data lies; looked at once it is there, for before that nothing was written.
        udp_ports: the range for media; empty where the system chooses.
        cgroup: of control groups.
        udp_tables: of open UDP sockets.
    """

    data_dir: Path
    udp_ports: range
    cgroup: Path = Path("/sys/fs/cgroup")
    udp_tables: tuple[Path, ...] = (Path("/proc/net/udp"), Path("/proc/net/udp6"))


def look(sources: Sources) -> Machine:
    """How it is now."""
    use = process_use()
    used_ports = _used_ports(sources)
    return Machine(
        disk_free_bytes=_disk_free_bytes(sources.data_dir),
        files_share=use.open_files / use.files_max if use.files_max > 0 else None,
        memory_share=_memory_share(sources.cgroup),
        ports_free=None if used_ports is None else len(sources.udp_ports) - used_ports,
        ports=len(sources.udp_ports),
    )


def _disk_free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _memory_share(cgroup: Path) -> float | None:
    """Of what the control group may use; its own files are the group's inside a container (cgroup namespaces).

    Copies of files count as free, also of those that were read more than once (`active_file`): the kernel gives them
    back before it ends a process, and with them a node that has served recordings would look full for ever.
    """
    for used_at, limit_at, copies in (
        ("memory.current", "memory.max", ("inactive_file", "active_file")),
        (
            "memory/memory.usage_in_bytes",
            "memory/memory.limit_in_bytes",
            ("total_inactive_file", "total_active_file"),
        ),
    ):
        used, limit = _number(cgroup / used_at), _number(cgroup / limit_at)
        if used is None or limit is None or not 0 < limit < UNLIMITED_BYTES:
            continue
        return max(0, used - _counted((cgroup / used_at).with_name("memory.stat"), copies)) / limit
    return None


def _used_ports(sources: Sources) -> int | None:
    """How many ports of the range have a socket, whoever's, at the address that has the most; None where there is no
    range. A session takes one at each address, and the same number may be free at one and used at another.
    """
    if not sources.udp_ports:
        return None
    used: defaultdict[str, set[int]] = defaultdict(set)
    for table in sources.udp_tables:
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in filter(str.strip, lines):
            address, _, port = line.split(maxsplit=2)[1].rpartition(":")
            if (number := int(port, 16)) in sources.udp_ports:
                used[address if address.strip("0") else ""].add(number)  # all addresses: zeros, of either family
    at_all = used.pop("", set())
    return max((len(at_all | ports) for ports in used.values()), default=len(at_all))


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _counted(path: Path, names: Sequence[str]) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    counts = dict(line.split(maxsplit=1) for line in lines if line.strip())
    return sum(int(counts.get(name, "0")) for name in names)
