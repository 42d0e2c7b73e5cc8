"""API keys: made, shown once, kept as hashes, rotated and revoked.

A key is `vf_<id>_<secret>`: the id finds its row and may be told, the secret has 256 bits. A hash without salt and
stretching is enough for that many bits: nobody finds them by trying.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from sqlalchemy import or_, select, update

from mediaserver.errors import ConfigError, VoiceForgeError
from mediaserver.storage.database import Database
from signaling.auth.plans import Plans
from signaling.auth.principal import KeyLimits, Principal, Scope
from signaling.auth.tables import ApiKey

PREFIX = "vf_"
ID_BYTES = 4
SECRET_BYTES = 32

FRESH_S = 3.0
"""How long a key is believed to be as it was read: revoking one takes no longer than this."""

REMEMBERED_MAX = 1000
"""Keys remembered at once; the one that was read first is forgotten first, and read again when it comes."""

USED_AGAIN_S = 60.0
"""How exact `last_used_at` is: a write a minute and key, and not one a request."""

LISTED_MAX = 10_000
"""Keys that are listed at most."""

ASKED_AT_ONCE = 500
"""Ids in one question: databases bound the length of those."""

_KEY = re.compile(rf"{PREFIX}([0-9a-f]{{{2 * ID_BYTES}}})_([A-Za-z0-9_-]{{43}})")

TENANT_LETTERS = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is to be.

    Args:
        name: for people.
        tenant: whose it is.
        scopes: what it may do.
        limits: how much; what is left out here is as its plan says.
        plan: the name of its plan, None without one.
        networks: addresses that it may come from; none is any.
        expires_at: seconds since 1970; None is never.
    """

    name: str
    tenant: str
    scopes: Sequence[Scope] = (Scope.STREAM, Scope.JOBS)
    limits: KeyLimits = field(default_factory=KeyLimits)
    plan: str | None = None
    networks: Sequence[str] = ()
    expires_at: float | None = None


class Keys:
    """The keys of a database. Methods raise what `Database.reading` does.

    Args:
        database: where they are kept.
        plans: what plans' names stand for.
        wall_s: seconds since 1970.
    """

    def __init__(
        self, database: Database, *, plans: Plans | None = None, wall_s: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._plans = plans or Plans()
        self.on_ended: list[Callable[[str], None]] = []
        """Each called with the id of a key that was revoked, here or in a process that shares its state with this one:
        its sessions need not wait to be asked for."""
        self._wall_s = wall_s
        self._rows: dict[str, tuple[float, ApiKey | None]] = {}  # bound: REMEMBERED_MAX
        self._exist: tuple[float, bool] | None = None

    async def exist(self) -> bool:
        """Whether a key was ever made here; from then on nobody comes in without one."""
        now_s = self._wall_s()
        if self._exist is None or not (self._exist[1] or _is_fresh(self._exist[0], now_s)):
            self._exist = (now_s, await self._any())
        return self._exist[1]

    async def find(self, value: str, *, address: str | None = None) -> tuple[Principal | None, str]:
        """Whom a key stands for, or None and why it stands for nobody.

        Args:
            value: what the client sent.
            address: where it came from; None leaves the key's networks out.
        """
        match = _KEY.fullmatch(value)
        row = None if match is None else await self._row(match[1])
        given = hashlib.sha256(value.encode(errors="replace")).hexdigest()
        # Compared also where there is no such key: how long that takes tells nobody which ids there are.
        is_same = hmac.compare_digest(given, _NO_DIGEST if row is None else row.digest)
        if row is None or not is_same:
            return None, "The key is not one of this server."
        principal, why = self._principal(row, address)
        if principal is not None:
            await self._note_use(row)
        return principal, why

    async def principal_of_id(self, key_id: str, *, address: str | None = None) -> Principal | None:
        """Whom a key stands for that gave out a token; None: it no longer stands for anybody."""
        row = await self._row(key_id)
        return None if row is None else self._principal(row, address)[0]

    async def create(self, wanted: NewKey) -> tuple[ApiKey, str]:
        """Make a key.

        Returns:
            Its row, and the key itself, which is kept nowhere.

        Raises:
            ConfigError: INVALID_KEY: a name with control characters; a tenant, a network, a scope or a plan that is
                none.
        """
        _require_readable(wanted.name)
        self._plans.require(wanted.plan)
        row, value = _made(wanted, now_s=self._wall_s())
        async with self._database.writing() as session:
            session.add(row)
        self._exist = None
        return row, value

    async def all(self, *, tenant: str | None = None) -> list[ApiKey]:
        """The keys, the newest first."""
        if not self._database.exists:
            return []
        query = select(ApiKey).order_by(ApiKey.created_at.desc()).limit(LISTED_MAX)
        if tenant is not None:
            query = query.where(ApiKey.tenant == tenant)
        async with self._database.reading() as session:
            return list(await session.scalars(query))

    async def rotate(self, key_id: str, *, overlap_s: float) -> tuple[ApiKey, str]:
        """Make a key like another, which goes on for `overlap_s` so that programs can change over.

        Raises:
            VoiceForgeError: KEY_NOT_FOUND, or KEY_ENDED where the other no longer works.
        """
        now_s = self._wall_s()
        async with self._database.writing() as session:
            old = await session.get(ApiKey, key_id)
            if old is None:
                raise _not_found()
            if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now_s):
                raise VoiceForgeError("KEY_ENDED", "The key no longer works.", "Make a new one.")
            row, value = _made(
                NewKey(
                    name=old.name,
                    tenant=old.tenant,
                    scopes=[Scope(scope) for scope in old.scopes],
                    limits=KeyLimits.model_validate(old.limits),
                    plan=old.plan,
                    networks=old.networks,
                    expires_at=old.expires_at,
                ),
                now_s=now_s,
            )
            old.expires_at = min(now_s + overlap_s, old.expires_at or float("inf"))
            session.add(row)
        self._rows.pop(key_id, None)
        return row, value

    async def revoke(self, key_id: str) -> ApiKey:
        """End a key now; other processes follow within `FRESH_S`.

        Raises:
            VoiceForgeError: KEY_NOT_FOUND.
        """
        async with self._database.writing() as session:
            row = await session.get(ApiKey, key_id)
            if row is None:
                raise _not_found()
            row.revoked_at = row.revoked_at or self._wall_s()
        self.has_ended(key_id)
        return row

    def has_ended(self, key_id: str) -> None:
        """A key was revoked, here or in another process: forget how it was, and tell those who want to know."""
        self._rows.pop(key_id, None)
        for tell in self.on_ended:
            tell(key_id)

    async def change_plan(self, key_id: str, plan: str | None) -> ApiKey:
        """Give a key another plan, or none; other processes follow within `FRESH_S`. Its own limits stay.

        Raises:
            ConfigError: INVALID_KEY: there is no such plan.
            VoiceForgeError: KEY_NOT_FOUND.
        """
        self._plans.require(plan)
        async with self._database.writing() as session:
            row = await session.get(ApiKey, key_id)
            if row is None:
                raise _not_found()
            row.plan = plan
        self._rows.pop(key_id, None)
        return row

    async def ended(self, key_ids: Collection[str]) -> set[str]:
        """Those of these keys that no longer work, asked for in the database itself."""
        now_s = self._wall_s()
        over: set[str] = set()
        some = list(key_ids)
        async with self._database.reading() as session:
            for start in range(0, len(some), ASKED_AT_ONCE):
                query = select(ApiKey.id).where(
                    ApiKey.id.in_(some[start : start + ASKED_AT_ONCE]),
                    or_(ApiKey.revoked_at.is_not(None), ApiKey.expires_at <= now_s),
                )
                over.update(await session.scalars(query))
        return over

    def effective_limits(self, row: ApiKey) -> KeyLimits | None:
        """What holds for a key, its plan's limits among it; None where its plan is not known here."""
        return self._plans.limits(row.plan, row.limits)

    def _principal(self, row: ApiKey, address: str | None) -> tuple[Principal | None, str]:
        if row.revoked_at is not None:
            return None, "The key has been revoked."
        if row.expires_at is not None and row.expires_at <= self._wall_s():
            return None, "The key has expired."
        if address is not None and row.networks and not is_within(address, row.networks):
            return None, "The key may not be used from this address."
        limits = self.effective_limits(row)
        if limits is None:
            return None, "The key's plan is not known to this server."
        scopes = frozenset(Scope(scope) for scope in row.scopes)
        return Principal(row.tenant, row.id, scopes, limits), ""

    async def _any(self) -> bool:
        if not self._database.exists:
            return False
        async with self._database.reading() as session:
            return (await session.scalar(select(ApiKey.id).limit(1))) is not None

    async def _row(self, key_id: str) -> ApiKey | None:
        now_s = self._wall_s()
        known = self._rows.get(key_id)
        if known is not None and _is_fresh(known[0], now_s):
            return known[1]
        row = None
        if self._database.exists:
            async with self._database.reading() as session:
                row = await session.get(ApiKey, key_id)
        self._rows.pop(key_id, None)
        while len(self._rows) >= REMEMBERED_MAX:
            del self._rows[next(iter(self._rows))]
        self._rows[key_id] = (now_s, row)
        return row

    async def _note_use(self, row: ApiKey) -> None:
        now_s = self._wall_s()
        if row.last_used_at is not None and now_s - row.last_used_at < USED_AGAIN_S:
            return
        row.last_used_at = now_s
        try:
            async with self._database.writing() as session:
                await session.execute(update(ApiKey).where(ApiKey.id == row.id).values(last_used_at=now_s))
        except VoiceForgeError:  # logged by the database; it is for people's orientation, and refuses nobody
            return


def is_within(address: str, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of these networks; an IPv4 address written in IPv6 is that IPv4 address."""
    try:
        own = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(own, "ipv4_mapped", None)
    own = own if mapped is None else mapped
    return any(own in ip_network(network, strict=False) for network in networks)


_NO_DIGEST = hashlib.sha256(b"").hexdigest()


def _is_fresh(read_s: float, now_s: float) -> bool:
    return 0 <= now_s - read_s < FRESH_S  # a clock that was set back makes nothing fresh for longer


def _require_readable(name: str) -> None:
    """Names stand in tables and logs: none may look like two lines, or like another. Of new keys: old ones can still be
    followed by others."""
    if not name.isprintable():
        raise ConfigError(
            "INVALID_KEY",
            "`name` has a line break or another character that cannot be seen.",
            "Write it on one line, of letters, digits, signs and plain spaces.",
        )


def _made(wanted: NewKey, *, now_s: float) -> tuple[ApiKey, str]:
    if not TENANT_LETTERS.fullmatch(wanted.tenant):
        raise ConfigError(
            "INVALID_KEY", "`tenant` is no name of a tenant.", "Give 1 to 64 letters of A–Z, a–z, 0–9 and ._-"
        )
    if not wanted.scopes:
        raise ConfigError("INVALID_KEY", "`scopes` is empty.", "Name at least one of stream, jobs and admin.")
    for network in wanted.networks:
        try:
            ip_network(network, strict=False)
        except ValueError as exc:
            raise ConfigError(
                "INVALID_KEY", "`networks` has what is no network.", "Write them as 192.0.2.0/24 or 2001:db8::/32."
            ) from exc
    key_id = secrets.token_hex(ID_BYTES)
    value = f"{PREFIX}{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"
    row = ApiKey(
        id=key_id,
        name=wanted.name,
        tenant=wanted.tenant,
        digest=hashlib.sha256(value.encode()).hexdigest(),
        scopes=sorted(set(wanted.scopes)),
        limits=wanted.limits.model_dump(exclude_none=True),
        plan=wanted.plan,
        networks=list(wanted.networks),
        created_at=now_s,
        expires_at=wanted.expires_at,
        revoked_at=None,
        last_used_at=None,
    )
    return row, value


def _not_found() -> VoiceForgeError:
    return VoiceForgeError("KEY_NOT_FOUND", "There is no such key.", "`voiceforge keys list` shows their ids.")
