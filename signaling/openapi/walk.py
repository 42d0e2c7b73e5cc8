"""All routes of an application with their descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import hdrs, web

from signaling.openapi.operation import Operation, Undescribed, description_of


@dataclass(frozen=True, slots=True)
class DescribedRoute:
    """A route that is in the documents.

    Args:
        method: in lower case.
        path: with `{name}` for what is left open.
        operation: its description.
    """

    method: str
    path: str
    operation: Operation


def described_routes(app: web.Application) -> list[DescribedRoute]:
    """The routes that are in the documents, in the order of their paths.

    HEAD is left out where it is GET without the body (RFC 9110 section 9.3.2).
    """
    found = [
        DescribedRoute(route.method.lower(), path, description)
        for route, path in _routes(app)
        if isinstance(description := description_of(route.handler), Operation)
    ]
    return sorted(found, key=lambda route: (route.path, route.method))


def undescribed_routes(app: web.Application) -> list[str]:
    """The routes that have no description and do not say why: there should be none."""
    return [f"{route.method} {path}" for route, path in _routes(app) if description_of(route.handler) is None]


def left_out_routes(app: web.Application) -> dict[str, str]:
    """Why routes are in no document, by method and path."""
    return {
        f"{route.method} {path}": description.reason
        for route, path in _routes(app)
        if isinstance(description := description_of(route.handler), Undescribed)
    }


def _routes(app: web.Application) -> Iterator[tuple[web.AbstractRoute, str]]:
    routes = [(route, route.resource.canonical) for route in app.router.routes() if route.resource is not None]
    got = {(path, route.handler) for route, path in routes if route.method == hdrs.METH_GET}
    for route, path in routes:
        if route.method != hdrs.METH_HEAD or (path, route.handler) not in got:
            yield route, path
