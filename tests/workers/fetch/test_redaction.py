"""What the fetcher prints."""

from __future__ import annotations

import io

from modelhub.serving.protocol.redaction import Redactor
from modelhub.serving.workers.fetch.redaction import RedactedStream


def test_a_stream_masks_secrets_that_arrive_in_pieces() -> None:
    redactor, out = Redactor(), io.StringIO()
    redactor.add("hunter22")
    stream = RedactedStream(out, redactor)
    for piece in ("pass hun", "ter22 ok\nnext ", "line\n"):
        stream.write(piece)
    assert out.getvalue() == "pass *** ok\nnext line\n"
