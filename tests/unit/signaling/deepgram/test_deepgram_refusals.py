"""What a refusal looks like, whatever the client wrote that is quoted in it."""

from __future__ import annotations

from http import HTTPStatus

from signaling.problems import HttpError
from signaling.routes.deepgram.refusals import ERROR, ERROR_LETTERS, refusal_response


def test_the_words_of_a_client_in_a_header_are_no_header_of_its_own() -> None:
    message = "No `a\r\nSet-Cookie: b\x00\x7f\x85ß\u2028`. " + "x" * 1000
    response = refusal_response(HttpError(HTTPStatus.BAD_REQUEST, "WRONG", message, "Do it right."), "id")
    told = response.headers[ERROR]
    assert told.startswith("No `a??Set-Cookie: b?????`. xxx")
    assert len(told) == ERROR_LETTERS
