"""What tenants share, and how much of it one of them may take (sans-IO).

A tenant may have as many as are left free for the others. One alone gets half, two that are greedy a third each, and
however many there are, a newcomer finds room: nobody has to say how many tenants there will be.
"""

from __future__ import annotations

from dataclasses import dataclass

from mediaserver.errors import CapacityError


@dataclass(frozen=True, slots=True)
class Shared:
    """A number of places for all tenants together.

    Args:
        what: what takes one, in the plural: `recordings that wait`.
        full: code of the refusal where none is left: 503.
        used_up: code where this tenant has its share: 429.
        retry_after_s: after so long one may be free.
        meanwhile: what the tenant itself can do, a sentence.
    """

    what: str
    full: str
    used_up: str
    retry_after_s: int
    meanwhile: str

    def require(self, more: int, *, own: int, all_tenants: int, limit: int) -> None:
        """Let a tenant take some more, or refuse it.

        Args:
            more: how many.
            own: how many it has.
            all_tenants: how many all have, with these.
            limit: of all.

        Raises:
            CapacityError: `full`, or `used_up`.
        """
        if own + more + all_tenants + more <= limit:
            return
        if own == 0 or all_tenants + more > limit:
            raise CapacityError(
                self.full,
                f"There are {all_tenants} {self.what}, of {limit} at most.",
                f"Try again in {self.retry_after_s} s.",
                retry_after_s=self.retry_after_s,
            )
        raise CapacityError(
            self.used_up,
            f"Of the {self.what} {own} are yours; {limit - all_tenants} places are left, for others too.",
            f"{self.meanwhile} Or try again in {self.retry_after_s} s.",
            retry_after_s=self.retry_after_s,
        )
