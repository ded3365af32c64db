"""Events that are requests: large, left early, streamed, over gRPC, of models that print, not read, from web pages.

Each method is one event; what it asks for is counted in the ledger under its kind, and what is not as it has to be
is a failure of that kind.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio
from clients import JSON, Client, body_of, raw_answer_of, values_of
from ledger import Ledger

from modelhub.serving.gateway.grpc.generated import open_inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService"
MIB = 1 << 20
#: Values of a large body, 28 MiB as float32.
LARGE = 7 * MIB
#: MiB of an answer that nobody reads.
UNREAD = 24
#: Seconds that a client may read nothing (server.write_timeout of the soak's gateway).
WRITE_TIMEOUT = 3
#: Seconds after which such a client looks: buffers fill first, and on a busy machine that takes a while.
LOOKS = 15
ATTACKS = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "https://evil.example"},
    {"Host": "evil.example"},
    {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
]
CONTROL = [
    ("GET", "/status"),
    ("POST", "/admin/reload"),
    ("POST", "/v2/repository/models/identity/load"),
    ("POST", "/v2/repository/models/identity/unload"),
    ("POST", "/admin/mlflow-webhook"),
]


class Traffic:
    def __init__(self, client: Client, ledger: Ledger, rng: random.Random) -> None:
        self._client = client
        self._ledger = ledger
        self._rng = rng
        self._numbers = bytes(rng.randbytes(1 << 16)).replace(b"\xff", b"\x00") * (LARGE * 4 >> 16)
        self._channel: Any = grpc.aio.insecure_channel(
            client.place.grpc, options=[("grpc.max_receive_message_length", -1)]
        )
        where = urlsplit(client.place.url)
        self._address = (where.hostname or "", where.port or 80)

    async def close(self) -> None:
        await self._channel.close()

    async def big(self) -> None:
        """Tens of megabytes there and back."""
        count = self._rng.randrange(LARGE // 2, LARGE) & ~1023
        raw = self._numbers[: count * 4]
        tensor: dict[str, Any] = {"name": "input-0", "shape": [count >> 10, 1024], "datatype": "FP32"}
        tensor["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        status, body = await self._client.ask("POST", "/v2/models/large/infer", head + raw, headers)
        wrong = "" if status == 200 else f"{status} {body[:200]!r}"
        self._ledger.count("big", wrong or ("" if body.endswith(raw) else "other values came back"))

    async def printed(self) -> None:
        """Five thousand lines at once."""
        status, body = await self._client.infer("printer", 5000, 120)
        right = status == 200 and values_of(body) == [5000, 120]
        self._ledger.count("print", "" if right else f"{status} {body[:200]!r}")

    async def abort(self) -> None:
        """A client that goes: in the midst of its body, of a prediction, of an answer, or without having asked."""
        how = self._rng.choice(["body", "large body", "prediction", "large prediction", "answer", "nothing"])
        large = how in ("large body", "large prediction")
        whole = self._numbers if large else raw_answer_of(8) if how == "answer" else body_of(300)
        model = "large" if large or how == "answer" else "sleepy"
        head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: {self._address[0]}:{self._address[1]}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(whole)}\r\n\r\n"
        cut = {"body": 20, "large body": len(whole) * 2 // 3}.get(how, len(whole))
        text = head.encode() + whole[:cut] if how != "nothing" else b""
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(text)
        await writer.drain()
        if how == "answer":
            await reader.readexactly(100)
        else:
            await asyncio.sleep(self._rng.uniform(0, 0.2))
        _reset(writer)
        self._ledger.count("abort")

    # ---- streams and gRPC -----------------------------------------------------------------------

    async def stream(self) -> None:
        """Events, all of them or, one time in three, only the first."""
        count, whole = self._rng.randrange(5, 50), self._rng.random() < 0.67
        url = f"{self._client.place.url}/v2/models/words/infer_stream"
        events: list[float] = []
        wrong = ""
        async with self._client.session.post(url, data=body_of(count, 3), headers=JSON) as answer:
            if answer.status != 200:
                wrong = f"{answer.status} {(await answer.read())[:200]!r}"
            async for line in answer.content:
                if line.startswith(b"data: "):
                    said: dict[str, Any] = json.loads(line[6:])
                    wrong = wrong or (str(said) if "error" in said else "")
                    events += said["outputs"][0]["data"][:1] if "outputs" in said else []
                if events and not whole:
                    answer.close()
                    break
        if whole and events != [float(number) for number in range(count)]:
            wrong = wrong or f"{len(events)} of {count} events"
        self._ledger.count("stream", wrong)

    async def unary(self) -> None:
        """ModelInfer; the values come back."""
        row = [float(self._rng.randrange(1 << 20)), 2.0]
        call = self._channel.unary_unary(f"{SERVICE}/ModelInfer")
        try:
            answer = pb.ModelInferResponse.FromString(await call(_question("identity", row), timeout=40))
            raw, typed = answer.raw_output_contents, answer.outputs[0].contents.fp32_contents
            found = list(struct.unpack(f"<{len(raw[0]) // 4}f", raw[0])) if raw else list(typed)
            wrong = "" if found == row else f"{row} is answered with {found}"
        except grpc.aio.AioRpcError as error:
            wrong = f"{error.code().name}: {error.details()}"
        self._ledger.count("gRPC", wrong)

    async def grpc_stream(self) -> None:
        """Several requests on one ModelStreamInfer; one time in four it is cancelled after the first answer."""
        counts, whole = [self._rng.randrange(2, 20) for _ in range(3)], self._rng.random() < 0.75
        call = self._channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(
            iter([_question("words", [count, 2.0]) for count in counts]), timeout=40
        )
        answers, wrong = 0, ""
        try:
            async for message in call:
                answer = pb.ModelStreamInferResponse.FromString(message)
                wrong = wrong or answer.error_message
                answers += 1
                if not whole:
                    call.cancel()
                    break
        except grpc.aio.AioRpcError as error:
            wrong = f"{error.code().name}: {error.details()}"
        if whole and answers != sum(counts):
            wrong = wrong or f"{answers} of {sum(counts)} answers"
        self._ledger.count("gRPC stream", wrong)

    # ---- who means no good ----------------------------------------------------------------------

    async def attack(self) -> None:
        """What a web page can send, with and without an operator's token: 403, whatever it is."""
        for more in ATTACKS:
            for method, path in CONTROL:
                headers = {**more, **(self._client.operator if self._rng.random() < 0.5 else {})}
                status, _ = await self._client.ask(method, path, headers=headers, timeout=20)
                self._ledger.count("attack", "" if status == 403 else f"{method} {path} with {more}: {status}")

    async def unread(self) -> None:
        """Clients that ask for a large answer, or for a long stream, and read nothing: they lose their connection."""
        answer = ("/v2/models/large/infer", raw_answer_of(UNREAD), UNREAD * MIB)
        stream = ("/v2/models/words/infer_stream", body_of(4000, 4096), 64 * MIB)
        await asyncio.gather(*(self._unread(*each) for each in (answer, answer, stream)), self._unread_grpc())

    async def _unread(self, path: str, body: bytes, most: int) -> None:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(connection, self._address)
            head = f"POST {path} HTTP/1.1\r\nHost: {self._address[0]}:{self._address[1]}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            await loop.sock_sendall(connection, head.encode() + body)
            await asyncio.sleep(LOOKS)
            found = 0
            try:
                async with asyncio.timeout(10):
                    while piece := await loop.sock_recv(connection, MIB):
                        found += len(piece)
                wrong = f"{found >> 20} MiB of {most >> 20} came" if found >= most else ""
            except ConnectionError:
                wrong = ""
            except TimeoutError:
                wrong = f"the connection is still open after {LOOKS} s"
        self._ledger.count("unread", wrong)

    async def _unread_grpc(self) -> None:
        """Over gRPC its own flow control stops the stream; the client goes."""
        call = self._channel.stream_stream(f"{SERVICE}/ModelStreamInfer")(
            iter([_question("words", [4000.0, 4096.0])]), timeout=40
        )
        await asyncio.sleep(WRITE_TIMEOUT)
        call.cancel()
        self._ledger.count("unread")

    async def held(self) -> None:
        """Forty connections on which nothing is asked, or only begun to be asked."""
        opened = [await asyncio.open_connection(*self._address) for _ in range(40)]
        for _, writer in opened[::2]:
            writer.write(b"POST /v2/models/identity/infer HTTP/1.1\r\nHost:")
        await asyncio.sleep(8)
        for _, writer in opened:
            _reset(writer)
        self._ledger.count("held", requests=len(opened))


def _question(model: str, row: list[float]) -> bytes:
    """A V2 request of one row as a gRPC message."""
    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="input-0", datatype="FP32", shape=[1, len(row)]).contents.fp32_contents.extend(row)
    data: bytes = request.SerializeToString()
    return data


def _reset(writer: asyncio.StreamWriter) -> None:
    """The end of a connection without a goodbye."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
