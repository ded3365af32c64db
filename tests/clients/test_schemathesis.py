"""schemathesis against our own OpenAPI document, and, by `make test-official`, against that of the protocol."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from support.client_scripts import ENVIRONMENTS
from support.gateway_process import Gateway

PROGRAM = ENVIRONMENTS / "schemathesis/bin/schemathesis"
#: What a schema calls valid can still be no request for a model; and nothing here is created.
EXCLUDED = "positive_data_acceptance,use_after_free,ensure_resource_availability"
OIP_SPEC = os.environ.get("OIP_SPEC", "")


def run(location: str, folder: Path, *options: str) -> None:
    assert PROGRAM.exists(), "no .venvs/schemathesis: run `make test-clients`, which makes it"
    command = [str(PROGRAM), "run", location, "--no-color", "--max-examples", "15", "--phases", "coverage,fuzzing"]
    command += ["--request-timeout", "20", "--warnings", "off", "--suppress-health-check", "all", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=110, check=False, cwd=folder, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout, done.stdout


@pytest.mark.parametrize("path", ["/openapi.json", "/v2/models/iris/openapi.json", "/v2/models/datatypes/openapi.json"])
def test_our_document(shared_gateway: Gateway, tmp_path: Path, path: str) -> None:
    run(f"{shared_gateway.url}{path}", tmp_path, "--checks", "all", "--exclude-checks", EXCLUDED)


if OIP_SPEC:

    def test_the_official_document(shared_gateway: Gateway, tmp_path: Path) -> None:
        """Its paths carry a stray dollar sign; it knows few answers to mistakes: only good ones are held to it."""
        document = yaml.safe_load(Path(OIP_SPEC).read_text().replace("${", "{"))
        known = {"MODEL_NAME": "datatypes", "MODEL_VERSION": "1"}
        for path in document["paths"].values():
            for parameter in path.get("parameters", ()):
                parameter["schema"]["enum"] = [known[parameter["name"]]]
        spec = tmp_path / "open_inference_rest.yaml"
        spec.write_text(yaml.safe_dump(document))
        checks = "not_a_server_error,content_type_conformance,response_schema_conformance"
        run(str(spec), tmp_path, "--url", shared_gateway.url, "--checks", checks)
