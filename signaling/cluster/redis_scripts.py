"""What Redis does at once, in Lua. Times are the server's own: those of nodes may differ, and be set.

A group is two keys in one hash slot: a sorted set of members by the time (ms) at which they expire, and a hash of their
values; a member without a value has no field in it. Each call costs O(log N) and sweeps out at most `SWEPT` members.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from textwrap import dedent

SWEPT = 100
"""Expired members that one call removes: more than ever expire between two of a busy group, and soon done."""

LISTED_AT_ONCE = 1000
"""Values that a script reads with one command: Lua's stack holds 8000."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that Redis knows it by once it has seen it."""

    text: str

    @property
    def sha(self) -> str:
        """What EVALSHA takes."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_NOW_MS = "local t = redis.call('TIME')\nlocal now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

_SWEEP = f"""
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, {SWEPT})
if #old > 0 then
  redis.call('ZREM', KEYS[1], unpack(old))
  redis.call('HDEL', KEYS[2], unpack(old))
end
"""

SWAP = Script(
    dedent("""
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    return 1
    """)
)
"""KEYS: the value's. ARGV: what is expected, what is set, for how many ms."""

JOIN = Script(
    _NOW_MS
    + _SWEEP
    + dedent("""
    local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
    local is_member = until_ms and tonumber(until_ms) > now
    local limit = tonumber(ARGV[4])
    if limit >= 0 and not is_member and redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf') >= limit then return 0 end
    local ttl = tonumber(ARGV[3])
    redis.call('ZADD', KEYS[1], now + ttl, ARGV[1])
    if ARGV[2] == '' then redis.call('HDEL', KEYS[2], ARGV[1]) else redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
    for i = 1, 2 do
      if redis.call('PTTL', KEYS[i]) < ttl then redis.call('PEXPIRE', KEYS[i], ttl) end
    end
    return 1
    """)
)
"""KEYS: times, values. ARGV: member, value, for how many ms, most members or -1."""

LEAVE = Script("redis.call('ZREM', KEYS[1], ARGV[1])\nredis.call('HDEL', KEYS[2], ARGV[1])\nreturn 1\n")
"""KEYS: times, values. ARGV: member."""

MEMBERS = Script(
    _NOW_MS
    + dedent(f"""
    local names = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
    local found = {{}}
    for first = 1, #names, {LISTED_AT_ONCE} do
      local some = {{unpack(names, first, math.min(first + {LISTED_AT_ONCE - 1}, #names))}}
      for i, value in ipairs(redis.call('HMGET', KEYS[2], unpack(some))) do
        found[#found + 1] = some[i]
        found[#found + 1] = value or ''
      end
    end
    return found
    """)
)
"""KEYS: times, values. Returns names and values in turn."""

DRAW = Script(
    dedent("""
    local t = redis.call('TIME')
    local now = t[1] * 1000000 + t[2]
    local one = 60000000 / tonumber(ARGV[1])
    local full = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
    full = math.min(full, now + 60000000)
    local wait = full + one - 60000000 - now
    if wait > 1 then return string.format('%.0f', wait) end
    local until_ms = math.ceil((full + one - now) / 1000)
    redis.call('SET', KEYS[1], string.format('%.0f', full + one), 'PX', until_ms)
    return '0'
    """)
)
"""KEYS: the bucket's, which holds when (µs) it will be full again. ARGV: how many a minute. Returns µs to wait. Where
the server's clock was set back nobody waits for longer than a minute."""

PUT_BACK = Script(
    dedent("""
    local t = redis.call('TIME')
    local now = t[1] * 1000000 + t[2]
    local full = tonumber(redis.call('GET', KEYS[1]) or 0) - 60000000 / tonumber(ARGV[1])
    if full <= now then
      redis.call('DEL', KEYS[1])
    else
      redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
    end
    return 1
    """)
)
"""KEYS, ARGV: as of `DRAW`."""
