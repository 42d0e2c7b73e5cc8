"""What `redis_url` says: one Redis, the master that Sentinels name, or a Cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, unquote, urlsplit

from mediaserver.errors import ConfigError

REDIS_PORT = 6379
SENTINEL_PORT = 26379

HOSTS_MAX = 100

OPTIONS = ("db", "sentinel_username", "sentinel_password", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""What may stand in a query: of Sentinels that ask for a password of their own, and of TLS with certificates of one's
own. Files are named by their paths."""

HINT = (
    "Write redis://host:6379/0, rediss://… with TLS, unix:///path/of/redis.sock, "
    "redis+sentinel://host:26379,host2:26379/mymaster/0 or redis+cluster://host:7000,host2:7000; "
    "with a password redis://:password@host, its special letters percent-encoded."
)


class RedisKind(StrEnum):
    """How the server that is asked is found."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisTarget:
    """A parsed URL.

    Args:
        kind: how the server is found.
        hosts: name and port of the server, of the Sentinels, or of nodes of the Cluster; none with a Unix socket.
        unix_path: of the server's socket.
        username, password: for the server.
        db: number of the database.
        master: the name that Sentinels know the server by.
        is_tls: whether connections are encrypted.
        options: the rest, by `OPTIONS`.
    """

    kind: RedisKind
    hosts: tuple[tuple[str, int], ...] = ()
    unix_path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    master: str = ""
    is_tls: bool = False
    options: Mapping[str, str] = field(default_factory=dict, repr=False)


_SCHEMES = {
    "redis": (RedisKind.SINGLE, False),
    "rediss": (RedisKind.SINGLE, True),
    "unix": (RedisKind.SINGLE, False),
    "redis+sentinel": (RedisKind.SENTINEL, False),
    "rediss+sentinel": (RedisKind.SENTINEL, True),
    "redis+cluster": (RedisKind.CLUSTER, False),
    "rediss+cluster": (RedisKind.CLUSTER, True),
}

_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")


def parse_redis_url(url: str) -> RedisTarget:
    """What a URL says.

    Raises:
        ConfigError: REDIS_URL_INVALID. It does not repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError as exc:
        raise _invalid("It is no URL.") from exc
    found = _SCHEMES.get(parts.scheme)
    if found is None:
        raise _invalid("Its scheme is none of redis, rediss and unix, or of these with +sentinel or +cluster.")
    kind, is_tls = found
    if parts.fragment:
        raise _invalid("A # in a password is written as %23.")
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise _invalid(f"Its query may name {', '.join(OPTIONS)}; it names {len(unknown)} others.")
    userinfo, _, hosts = parts.netloc.rpartition("@")
    username, _, password = userinfo.partition(":")
    path = [unquote(part) for part in parts.path.split("/") if part]
    is_unix = parts.scheme == "unix"
    master = path.pop(0) if kind is RedisKind.SENTINEL and path else ""
    db = options.pop("db", None) or (path.pop(0) if path and kind is not RedisKind.CLUSTER and not is_unix else "0")
    if kind is RedisKind.SENTINEL and not master:
        raise _invalid("It does not name the master that the Sentinels watch.")
    if (path and not is_unix) or not re.fullmatch(r"[0-9]{1,5}", db):
        raise _invalid("What follows the host is no number of a database.")
    if kind is RedisKind.CLUSTER and int(db):
        raise _invalid("A Cluster has database 0 alone.")
    if is_unix and (hosts or not path):
        raise _invalid("A Unix socket is named by its whole path, after three slashes.")
    return RedisTarget(
        kind,
        hosts=() if is_unix else _hosts(hosts, SENTINEL_PORT if kind is RedisKind.SENTINEL else REDIS_PORT, kind),
        unix_path=unquote(parts.path) if is_unix else None,
        username=unquote(username) or None,
        password=unquote(password) or None,
        db=int(db),
        master=master,
        is_tls=is_tls,
        options=options,
    )


def _hosts(text: str, port: int, kind: RedisKind) -> tuple[tuple[str, int], ...]:
    found = []
    for item in text.split(","):
        match = _HOST.fullmatch(item)
        if match is None or not 0 < int(match["port"] or port) < 65_536:
            raise _invalid("It names no host, or a port that is none.")
        found.append((match["v6"] or match["name"], int(match["port"] or port)))
    if len(found) > (1 if kind is RedisKind.SINGLE else HOSTS_MAX):
        raise _invalid("It names more hosts than that kind may have.")
    return tuple(found)


def _invalid(why: str) -> ConfigError:
    return ConfigError("REDIS_URL_INVALID", f"`redis_url` cannot be used. {why}", HINT)
