"""The committed page is the build of its sources. Needs no Node: it compares digests that the build recorded.

`web/build.mjs` computes the same digest; what it bundles is compared byte by byte by
tests/integration/test_page_build.py.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
STATIC = ROOT / "signaling" / "static"
NOT_SOURCES = {"node_modules", "dist", "test"}
REBUILD = "The page is stale: run `npm ci && npm run build` in web/ and commit signaling/static."


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sources_digest() -> str:
    paths = [path for path in WEB.rglob("*") if path.is_file()]
    names = [path.relative_to(WEB) for path in paths if not NOT_SOURCES & set(path.relative_to(WEB).parts[:-1])]
    ordered = sorted((name.as_posix() for name in names), key=lambda name: name.encode())
    return _sha256("".join(f"{_sha256((WEB / name).read_bytes())}  {name}\n" for name in ordered).encode())


def test_page_is_built_from_these_sources() -> None:
    record = json.loads((STATIC / "build.json").read_text())
    assert record["sources_sha256"] == _sources_digest(), REBUILD


def test_built_files_are_as_the_build_left_them() -> None:
    expected = json.loads((STATIC / "build.json").read_text())["files_sha256"]
    found = {path.name: _sha256(path.read_bytes()) for path in STATIC.iterdir() if path.name != "build.json"}
    assert found == expected, REBUILD


def test_page_loads_nothing_from_elsewhere_and_has_nothing_inline() -> None:
    html = (STATIC / "index.html").read_text()
    style = (STATIC / "style.css").read_text()
    assert "http:" not in html
    assert "https:" not in html
    assert " style=" not in html
    assert "<style" not in html
    assert "@import" not in style
    assert "url(" not in style
    for script in html.split("<script")[1:]:
        assert script.split(">")[0].count(" src=") == 1


def test_scripts_stay_small() -> None:
    scripts_bytes = sum((STATIC / name).stat().st_size for name in ("page.js", "voiceforge.js"))
    assert scripts_bytes < 60_000
