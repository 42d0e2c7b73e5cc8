"""The client's own checks, and that a build from the sources is the committed one, byte by byte. Needs Node."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

WEB = Path(__file__).parents[2] / "web"

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None or not (WEB / "node_modules").is_dir(),
    reason="needs Node and `npm ci` in web/; the digests are checked without them in tests/unit/test_page_is_built.py",
)


@pytest.mark.parametrize("script", ["types", "test", "verify"])
def test_npm_script_passes(script: str) -> None:
    done = subprocess.run(["npm", "run", "--silent", script], cwd=WEB, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
