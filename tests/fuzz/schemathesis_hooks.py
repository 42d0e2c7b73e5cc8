"""What schemathesis cannot make of a schema: bodies that are neither JSON nor forms."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure

from tests.fuzz.requests import RECORDING
from tests.fuzz.test_fuzz_whip import FRAGMENTS, OFFERS

REQUEST_LINE_MAX_BYTES = 8190
"""More is refused before it is a request, by aiohttp's parser and in plain text."""

schemathesis.openapi.media_type("application/sdp", st.sampled_from(OFFERS).map(str.encode))
schemathesis.openapi.media_type("application/trickle-ice-sdpfrag", st.sampled_from(FRAGMENTS).map(str.encode))
schemathesis.openapi.media_type("application/offset+octet-stream", st.sampled_from([b"", b"\x00", RECORDING]))


SCHEMA_VALID_REJECTED = "ST202"
SCHEMA_VIOLATING_ACCEPTED = "ST201"

BEYOND_SCHEMAS = (
    "POST /whip",  # the model that is loaded, and whether an offer has audio
    "POST /v1/realtime/calls",
    "POST /v1/realtime/client_secrets",  # the models that are loaded
    "POST /v1/realtime/transcription_sessions",
    "POST /v1/listen",  # features that are refused by name, and whether bytes are audio
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
    "POST /api/v1/transcriptions",  # whether an address is public
    "POST /api/v1/transcriptions/batch",
    "POST /api/v1/uploads",  # how much the node takes
    "PATCH /api/v1/uploads/{id}",
    "POST /api/v1/admin/keys",  # which plans there are, and what a network is
    "PATCH /api/v1/admin/keys/{id}",
)
"""What these take depends on more than a schema can say."""


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Whether a failure is one."""
    url = response.request.url or ""
    if response.status_code == 400 and len(url.encode()) >= REQUEST_LINE_MAX_BYTES:
        return False
    if failure.code == SCHEMA_VIOLATING_ACCEPTED and "in header - object with unexpected properties" in failure.message:
        return False  # HTTP lets every request have headers that nobody knows
    return not (failure.code == SCHEMA_VALID_REJECTED and case.operation.label in BEYOND_SCHEMAS)
