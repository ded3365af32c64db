"""V2 requests and responses: what is taken, what is refused, how an answer is written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelhub.serving.protocol.errors import InvalidRequest, NotSupported, ServingError, UnsupportedMediaType
from modelhub.serving.protocol.v2 import (
    OutputTensor,
    build_response,
    check_content_type,
    did_you_mean,
    parse_document,
    parse_request,
)
from support.v2_client import binary_request, request, tensor

GOOD = tensor("x", "FP32", [2], [1, 2])


def changed(**members: object) -> bytes:
    """A request whose only input has these members changed; those that are `...` are left out."""
    return request({key: value for key, value in {**GOOD, **members}.items() if value is not ...})


MALFORMED = {
    "empty": b"",
    "not JSON": b"{",
    "bad UTF-8": b'{"inputs": "\xff"}',
    "lone surrogate": b'{"id": "\\ud800", "inputs": []}',
    "nested a thousand deep": b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "a list": b"[]",
    "a string": b'"inputs"',
    "null": b"null",
    "no inputs": b"{}",
    "inputs empty": b'{"inputs": []}',
    "inputs an object": b'{"inputs": {}}',
    "an input that is no object": b'{"inputs": [1]}',
    "no name": changed(name=...),
    "empty name": changed(name=""),
    "name a number": changed(name=1),
    "the same name twice": request(GOOD, GOOD),
    "no datatype": changed(datatype=...),
    "datatype unknown": changed(datatype="FLOAT"),
    "datatype in small letters": changed(datatype="fp32"),
    "datatype null": changed(datatype=None),
    "no shape": changed(shape=...),
    "shape a number": changed(shape=2),
    "shape negative": changed(shape=[-1]),
    "shape fraction": changed(shape=[2.0]),
    "shape true": changed(shape=[True, 2]),
    "shape text": changed(shape=["2"]),
    "shape overflows": changed(shape=[1 << 40, 1 << 40]),
    "shape overflows beside a zero": changed(shape=[0, 1 << 62], data=[]),
    "too many dimensions": changed(shape=[1] * 33, data=[1]),
    "no data": changed(data=...),
    "data null": changed(data=None),
    "data a number": changed(data=1),
    "data an object": changed(data={}),
    "scalar data null": changed(shape=[], data=None),
    "scalar data an object": changed(shape=[], data={}),
    "parameters a list": changed(parameters=[]),
    "parameter a list": changed(parameters={"a": [1]}),
    "binary size without the header": changed(data=..., parameters={"binary_data_size": 8}),
    "request parameters text": request(GOOD, parameters="a"),
    "request parameter an object": request(GOOD, parameters={"a": {}}),
    "binary_data_output text": request(GOOD, parameters={"binary_data_output": "true"}),
    "id a number": request(GOOD, id=1),
    "outputs an object": request(GOOD, outputs={}),
    "an output without a name": request(GOOD, outputs=[{}]),
    "an output that is text": request(GOOD, outputs=["y"]),
    "an output twice": request(GOOD, outputs=[{"name": "y"}, {"name": "y"}]),
    "binary_data a number": request(GOOD, outputs=[{"name": "y", "parameters": {"binary_data": 1}}]),
}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (request(GOOD, top_k=7), "the request has the field 'top_k', which nothing reads: .*go into \"parameters\""),
        (request(GOOD, params={"a": 1}), "'params', which nothing reads: did you mean 'parameters'"),
        (request(GOOD, output=[]), "'output', which nothing reads: did you mean 'outputs'"),
        (changed(parameter={"a": 1}), "the input 'x' has the field 'parameter', .* did you mean 'parameters'"),
        (changed(dtype="FP64"), "the input 'x' has the field 'dtype'"),
        (request(GOOD, outputs=[{"name": "y", "binary_data": True}]), "the output 'y' has the field 'binary_data'"),
    ],
)
def test_members_that_nobody_reads_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_request(body)


def test_what_somebody_else_reads_too_is_not_refused() -> None:
    parsed = parse_document({"inputs": [{**GOOD, "mine": 1}], "outputs": [{"name": "y", "x": 1}], "z": 1}, is_open=True)
    assert [each.name for each in parsed.inputs] == [GOOD["name"]]


def test_null_counts_as_absent_wherever_it_stands() -> None:
    body = request(
        {**GOOD, "parameters": {"content_type": None}, "mine": None},
        parameters={"timeout": None, "priority": 1},
        outputs=[{"name": "y", "parameters": {"binary_data": None}}],
        params=None,
    )
    parsed = parse_request(body)
    assert (parsed.inputs[0].parameters, parsed.parameters) == ({}, {"priority": 1})
    assert parsed.outputs is not None
    assert parsed.outputs[0].parameters == {}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_requests_are_the_clients_mistake(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(body)
    assert caught.value.message


def head(**parameters: object) -> dict[str, object]:
    return {"name": "x", "shape": [2], "datatype": "FP32", "parameters": parameters}


HOSTILE_LENGTHS = {
    "negative": (head(binary_data_size=-8), 8),
    "larger than the body": (head(binary_data_size=1 << 40), 8),
    "more than the shape": (head(binary_data_size=12), 12),
    "not divisible": (head(binary_data_size=7), 7),
    "less than the body": (head(binary_data_size=8), 9),
    "true": (head(binary_data_size=True), 8),
    "a fraction": (head(binary_data_size=8.0), 8),
    "text": (head(binary_data_size="8"), 8),
    "with data too": ({**head(binary_data_size=8), "data": [1, 2]}, 8),
    "none": ({**head(), "data": [1, 2]}, 8),
}


@pytest.mark.parametrize(("item", "tail"), HOSTILE_LENGTHS.values(), ids=HOSTILE_LENGTHS.keys())
def test_hostile_binary_lengths(item: dict[str, object], tail: int) -> None:
    text = request(item)
    with pytest.raises(InvalidRequest):
        parse_request(text + bytes(tail), len(text))


@pytest.mark.parametrize("json_size", [-1, 1 << 40, 10])
def test_hostile_json_sizes(json_size: int) -> None:
    with pytest.raises(InvalidRequest):
        parse_request(request(GOOD), json_size)


def test_binary_tensors_are_views_in_the_order_of_their_inputs() -> None:
    body, json_size = binary_request(tensor("a", "FP32", [2], [1, 2]), tensor("b", "UINT8", [3], [1, 2, 3]))
    parsed = parse_request(memoryview(body), json_size)
    raws = [each.raw for each in parsed.inputs]
    assert [bytes(raw) for raw in raws if raw] == [body[-11:-3], body[-3:]]
    assert all(raw is not None and raw.obj is body for raw in raws)


def test_the_header_on_pure_json_is_fine() -> None:
    body = request(GOOD, id="")
    assert parse_request(body, len(body)).id == ""


def test_json_and_binary_inputs_together() -> None:
    text = json.dumps({"inputs": [GOOD, {**head(binary_data_size=8), "name": "y"}]}).encode()
    first, second = parse_request(text + bytes(8), len(text)).inputs
    assert first.data == [1, 2]
    assert second.raw == bytes(8)


def test_optional_members_may_be_null() -> None:
    parsed = parse_request(request({**GOOD, "parameters": None}, id=None, parameters=None, outputs=None))
    assert (parsed.id, parsed.parameters, parsed.outputs) == (None, {}, None)


def test_no_requested_outputs_means_all() -> None:
    assert parse_request(request(GOOD, outputs=[])).outputs is None


def test_a_scalar_may_stand_without_a_list() -> None:
    (only,) = parse_request(request(tensor("x", "FP32", [], 3))).inputs
    assert (only.shape, only.data) == ([], [3])


def test_an_outputs_binary_data_wins_over_the_requests() -> None:
    asked = [{"name": "a", "parameters": {"binary_data": False}}, {"name": "b"}]
    parsed = parse_request(request(GOOD, outputs=asked, parameters={"binary_data_output": True}))
    assert parsed.outputs is not None
    assert [parsed.wants_binary(each) for each in parsed.outputs] == [False, True]
    assert parsed.wants_binary(None)
    assert not parse_request(request(GOOD)).wants_binary(None)


@pytest.mark.parametrize(
    "body",
    [
        changed(data=..., parameters={"shared_memory_region": "r", "shared_memory_byte_size": 8}),
        request(GOOD, outputs=[{"name": "y", "parameters": {"classification": 2}}]),
        request(GOOD, outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]),
    ],
)
def test_extensions_that_are_not_here_are_named(body: bytes) -> None:
    with pytest.raises(NotSupported):
        parse_request(body)


# ---- raw requests ----------------------------------------------------------------------------------


def metadata(datatype: str, *shape: int) -> list[dict[str, object]]:
    return [{"name": "x", "datatype": datatype, "shape": list(shape)}]


@pytest.mark.parametrize(
    ("datatype", "declared", "size", "shape"),
    [
        ("FP32", (-1, 4), 32, [2, 4]),
        ("FP32", (2, 2), 16, [2, 2]),
        ("FP64", (-1,), 0, [0]),
        ("UINT8", (3, -1, 2), 12, [3, 2, 2]),
        ("INT16", (), 2, []),
    ],
)
def test_raw_request(datatype: str, declared: tuple[int, ...], size: int, shape: list[int]) -> None:
    parsed = parse_request(bytes(size), 0, metadata(datatype, *declared))
    (only,) = parsed.inputs
    assert (only.name, only.datatype, only.shape, only.raw) == ("x", datatype, shape, bytes(size))
    assert parsed.wants_binary(None)


def test_raw_bytes_are_one_element() -> None:
    (only,) = parse_request(b"abc", 0, metadata("BYTES", -1)).inputs
    assert (only.shape, only.data) == ([1], [b"abc"])


@pytest.mark.parametrize(
    ("inputs", "size"),
    [
        ([], 4),
        (metadata("FP32", -1) * 2, 4),
        (metadata("FP32", -1, -1), 4),
        (metadata("FP32", -1), 5),
        (metadata("FP32", -1, 4), 8),
        (metadata("FP32", 2), 12),
        (metadata("FP32", -1, 0), 4),
        (metadata("BYTES", 2), 4),
    ],
)
def test_raw_requests_that_cannot_be_understood(inputs: list[dict[str, object]], size: int) -> None:
    with pytest.raises(InvalidRequest):
        parse_request(bytes(size), 0, inputs)


# ---- media types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "json_size"),
    [
        ("", None),
        ("application/json", None),
        ("Application/JSON; charset=UTF-8", None),
        ("application/json;charset=utf8", None),
        ("application/vnd.api+json", None),
        ("application/x-www-form-urlencoded", None),
        ("application/octet-stream", 10),
        ("application/octet-stream", 0),
        ("image/png", 10),
    ],
)
def test_media_types_of_infer_requests(content_type: str, json_size: int | None) -> None:
    check_content_type(content_type, json_size, b"  {}")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"{}"),
        ("application/octet-stream", b"{}"),
        ("application/x-www-form-urlencoded", b"a=b"),
        ("application/json; charset=latin-1", b"{}"),
        ("application/xml", b"{}"),
    ],
)
def test_other_media_types(content_type: str, body: bytes) -> None:
    with pytest.raises(UnsupportedMediaType):
        check_content_type(content_type, None, body)


# ---- responses -------------------------------------------------------------------------------------


def test_a_response_leaves_out_what_it_has_not() -> None:
    body, json_size = build_response("m", [OutputTensor("y", "FP32", [2], data=[1.0, 2.0])])
    assert body == b'{"model_name":"m","outputs":[{"name":"y","shape":[2],"datatype":"FP32","data":[1.0,2.0]}]}'
    assert json_size is None


def test_a_response_with_everything() -> None:
    outputs = [
        OutputTensor("a", "UINT8", [2], raw=b"\x01\x02", parameters={"p": 1}),
        OutputTensor("b", "BYTES", [1], data=["AA=="], parameters={"content_type": "base64"}),
        OutputTensor("c", "UINT8", [0], raw=b""),
    ]
    body, json_size = build_response("m", outputs, model_version="3", request_id="é\n", parameters={"q": True})
    assert json_size is not None
    assert body[json_size:] == b"\x01\x02"
    document = json.loads(body[:json_size])
    assert list(document) == ["model_name", "model_version", "id", "parameters", "outputs"]
    assert document["id"] == "é\n"
    assert document["outputs"] == [
        {"name": "a", "shape": [2], "datatype": "UINT8", "parameters": {"p": 1, "binary_data_size": 2}},
        {
            "name": "b",
            "shape": [1],
            "datatype": "BYTES",
            "parameters": {"content_type": "base64"},
            "data": ["AA=="],
        },
        {"name": "c", "shape": [0], "datatype": "UINT8", "parameters": {"binary_data_size": 0}},
    ]


def test_nearest_names() -> None:
    assert did_you_mean("lenght", ["width", "length"]) == "did you mean 'length'?"
    assert did_you_mean("zzz", ["width", "length"]) == "there is 'width', 'length'"


# ---- anything at all -------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 65) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
MEMBER = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y", "", 1]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
        "datatype": st.sampled_from(["FP32", "BYTES", "BOOL", "X"]) | JSON,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "a"]), st.integers(-1, 9) | JSON) | JSON,
        "data": JSON,
    },
)


@given(
    document=st.fixed_dictionaries(
        {}, optional={"id": JSON, "parameters": JSON, "inputs": st.lists(MEMBER, max_size=3) | JSON, "outputs": JSON}
    )
    | JSON,
    tail=st.binary(max_size=12),
    has_header=st.booleans(),
)
def test_whatever_comes_is_parsed_or_refused(document: object, tail: bytes, has_header: bool) -> None:
    text = json.dumps(document).encode()
    try:
        parsed = parse_request(text + tail, len(text)) if has_header else parse_request(text)
    except ServingError:
        return
    assert parsed.inputs
