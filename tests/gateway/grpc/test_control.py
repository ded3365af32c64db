"""What changes the server, over gRPC: the same guard as over HTTP."""

from __future__ import annotations

import pytest

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb
from support.grpc_front import grpc_serving
from support.http_front import Model

CALLS = {
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="iris"),
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="iris"),
}


@pytest.mark.parametrize("method", CALLS)
async def test_the_token_travels_as_metadata(method: str) -> None:
    async with grpc_serving(Model(), admin=True, token="right") as front:
        for metadata in ({}, {"authorization": "Bearer wrong"}, {"authorization": "right"}):
            assert (await front.call(method, CALLS[method], **metadata)).code == "UNAUTHENTICATED"
        assert front.counters.grpc_errors == {"UNAUTHENTICATED": 3}
        assert front.operators.asked == []
        assert (await front.call(method, CALLS[method], authorization="Bearer right")).code == "OK"
        assert len(front.operators.asked) == 1


@pytest.mark.parametrize("method", CALLS)
async def test_what_a_proxy_says_of_a_page_counts(method: str) -> None:
    for admin, token in ((True, "right"), (True, None), (False, None)):
        async with grpc_serving(Model(), admin=admin, token=token) as front:
            for metadata in ({"origin": "http://evil.example"}, {"sec_fetch_site": "cross-site"}):
                metadata = {**metadata, "authorization": "Bearer right"}
                assert (await front.call(method, CALLS[method], **metadata)).code == "PERMISSION_DENIED"
            assert front.operators.asked == []


async def test_without_a_token_and_where_it_is_closed() -> None:
    async with grpc_serving(Model(), admin=True) as front:
        assert (await front.call("RepositoryModelLoad", CALLS["RepositoryModelLoad"])).code == "OK"
    async with grpc_serving(Model(), admin=False) as front:
        assert (await front.call("RepositoryModelLoad", CALLS["RepositoryModelLoad"])).code == "UNIMPLEMENTED"


async def test_a_message_is_not_parsed_for_who_may_not_send_it() -> None:
    class Broken:
        def SerializeToString(self) -> bytes:
            return b"\xff\xff"

    async with grpc_serving(Model(), admin=True, token="right") as front:
        assert (await front.call("RepositoryModelLoad", Broken())).code == "UNAUTHENTICATED"
