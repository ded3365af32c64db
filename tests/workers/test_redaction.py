"""Secrets do not reach messages or logs."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.workers.redaction import RedactedStream, Redactor, without_userinfo

secrets = st.text(st.characters(codec="utf-8", exclude_characters="*\r\n"), min_size=6, max_size=30)


@given(secrets, st.text(max_size=30), st.text(max_size=30))
def test_a_secret_of_the_environment_is_masked_wherever_it_stands(secret: str, before: str, after: str) -> None:
    redactor = Redactor({"MLFLOW_TRACKING_PASSWORD": secret, "HOME": "/home/user"})
    assert secret not in redactor.clean(f"{before}{secret}{after}")


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("GET http://me:pa%20ss@host:5000/x failed", "GET http://***@host:5000/x failed"),
        ("s3://b/k?X-Amz-Signature=abc&x=1", "s3://b/k?X-Amz-Signature=***&x=1"),
        ("Authorization: Bearer eyJhbGciOi.eyJzdWIiOi.abc-_", "Authorization: Bearer ***"),
        ("models:/iris@champion and a@b.org", "models:/iris@champion and a@b.org"),
        ("http://host/path and mail me@host", "http://host/path and mail me@host"),
    ],
)
def test_what_looks_like_a_secret(dirty: str, clean: str) -> None:
    assert Redactor().clean(dirty) == clean


def test_the_password_inside_an_address_is_masked_alone_too() -> None:
    redactor = Redactor({"MLFLOW_TRACKING_URI": "http://me:hunter22@host"})
    assert redactor.clean("login hunter22 refused") == "login *** refused"
    assert "hunter22" not in repr(redactor)


def test_percent_encoded_secrets_are_masked() -> None:
    redactor = Redactor()
    redactor.add("a/b c+d")
    assert redactor.clean("url?p=a%2Fb%20c%2Bd") == "url?p=***"


def test_a_stream_masks_secrets_that_arrive_in_pieces() -> None:
    redactor, out = Redactor(), io.StringIO()
    redactor.add("hunter22")
    stream = RedactedStream(out, redactor)
    for piece in ("pass hun", "ter22 ok\nnext ", "line\n"):
        stream.write(piece)
    assert out.getvalue() == "pass *** ok\nnext line\n"


def test_naming_a_server() -> None:
    assert without_userinfo("http://me:secret@host:1/p") == "http://host:1/p"
    assert without_userinfo("sqlite:////tmp/mlflow.db") == "sqlite:////tmp/mlflow.db"
