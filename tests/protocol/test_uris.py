"""What is a URI and what a path, for everybody who asks."""

from __future__ import annotations

import pytest

from modelhub.serving.protocol.errors import ConfigError
from modelhub.serving.protocol.uris import has_scheme, path_of


@pytest.mark.parametrize(
    "uri", ["models:/a/1", "runs:/1/m", "s3://b/k", "mlflow-artifacts:/1", "dbfs:/x", "S3:x", "a+b:c"]
)
def test_a_uri(uri: str) -> None:
    assert has_scheme(uri)
    assert path_of(uri) is None


@pytest.mark.parametrize("path", ["iris", "/a/b%20c#x?y", "./models:/a", "c:/models", "C:\\models", "1a:/x", "", ":x"])
def test_a_path(path: str) -> None:
    assert not has_scheme(path)
    assert path_of(path) == path


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        *(("file:/a/b%20c", "/a/b c"), ("file:///a#b?c", "/a#b?c"), ("file://localhost/a", "/a"), ("FILE:a", "a")),
        *(("file:~/a", "~/a"), ("file:///c:/a", "/c:/a")),
    ],
)
def test_a_file_of_this_machine(uri: str, path: str) -> None:
    assert has_scheme(uri)
    assert path_of(uri) == path


@pytest.mark.parametrize("uri", ["file://elsewhere/a", "file://elsewhere", "file:////elsewhere/a"])
def test_a_file_of_another_machine(uri: str) -> None:
    with pytest.raises(ConfigError, match="on the host elsewhere"):
        path_of(uri)


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert path_of("~/iris") == "/home/somebody/iris"
