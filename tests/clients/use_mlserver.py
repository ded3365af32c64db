"""What MLServer's unmodified codecs make of our answers: `python use_mlserver.py URL` prints it as JSON.

They make the request's document and read the answer's; it is posted as MLServer's users post it, nulls included.
"""

import asyncio
import datetime
import json
import sys
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
from cases import EXTREMES, run
from mlserver.codecs import Base64Codec, DatetimeCodec, NumpyCodec, NumpyRequestCodec, PandasCodec, StringCodec
from mlserver.types import (
    InferenceErrorResponse,
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataServerResponse,
    Parameters,
    RequestOutput,
)

URL = sys.argv[1]
NUMBERS = {name: array for name, array in EXTREMES.items() if name != "STR"}
TEXTS = EXTREMES["STR"].tolist()
FLOWERS = pd.DataFrame(
    {"sepal_length": [5.1, 6.3], "sepal_width": [3.5, 3.3], "petal_length": [1.4, 6.0], "petal_width": [0.2, 2.5]}
)


def ask(path, document=None):
    body = None if document is None else json.dumps(document).encode()
    asked = urllib.request.Request(f"{URL}/v2{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.loads(answer.read())


def infer(model, request):
    return InferenceResponse.model_validate(ask(f"/models/{model}/infer", request.model_dump()))


def case_numpy():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    back = NumpyRequestCodec.decode_response(infer("identity", NumpyRequestCodec.encode_request(array)))
    return [back.dtype.name, back.tolist()]


def case_every_datatype():
    """The names whose values came back changed."""
    inputs = [NumpyCodec.encode_input(name, array) for name, array in NUMBERS.items()]
    back = {output.name: output for output in infer("echo", InferenceRequest(inputs=inputs)).outputs}
    kinds = {name: NumpyCodec.decode_output(back[name]) for name in NUMBERS}
    return [
        name
        for name, array in NUMBERS.items()
        if kinds[name].dtype != array.dtype or kinds[name].reshape(-1).tolist() != array.tolist()
    ]


def case_pandas():
    """A column for each input, in and out."""
    back = PandasCodec.decode_response(infer("iris", PandasCodec.encode_request(FLOWERS)))
    return {name: column.tolist() for name, column in back.items()}


def case_pandas_strings():
    texts = pd.DataFrame({"text": ["a wonderful day", "a terrible day"]})
    answer = infer("sentiment", PandasCodec.encode_request(texts, use_bytes=False))
    back = PandasCodec.decode_response(answer)
    return [back["label"].tolist(), back["probability"].dtype.name]


def case_strings():
    request = InferenceRequest(inputs=[StringCodec.encode_input("x", TEXTS, use_bytes=False)])
    return StringCodec.decode_output(infer("echo", request).outputs[0])


def case_bytes():
    request = InferenceRequest(inputs=[Base64Codec.encode_input("x", [b"\xff\x00", b"", b"a"], use_bytes=False)])
    return [each.hex() for each in Base64Codec.decode_output(infer("echo", request).outputs[0])]


def case_datetimes():
    day = datetime.datetime(2024, 2, 29, 12, 30)
    request = InferenceRequest(inputs=[DatetimeCodec.encode_input("x", [day], use_bytes=False)])
    return [each.isoformat() for each in DatetimeCodec.decode_output(infer("echo", request).outputs[0])]


def case_id_outputs_and_parameters():
    request = InferenceRequest(
        id="request 7",
        inputs=[NumpyCodec.encode_input("value", np.array([1.5, 2.0]))],
        outputs=[RequestOutput(name="value")],
        parameters=Parameters(content_type="np", factor=2.0, offset=1),
    )
    answer = infer("params", request)
    value = NumpyCodec.decode_output(answer.outputs[0])
    return [answer.id, answer.model_name, [output.name for output in answer.outputs], value.reshape(-1).tolist()]


def case_vector():
    """A vector is sent as [n, 1], for a tensor of rank 1 too."""
    vector = np.array([1, 2, 3], dtype=np.float32)
    inputs = [NumpyCodec.encode_input(name, vector) for name in ("left", "right")]
    answer = infer("pair", InferenceRequest(inputs=inputs))
    return {output.name: NumpyCodec.decode_output(output).reshape(-1).tolist() for output in answer.outputs}


def case_metadata():
    server = MetadataServerResponse.model_validate(ask(""))
    model = MetadataModelResponse.model_validate(ask("/models/pair"))
    return [server.name, model.name, [each.name for each in model.inputs], [each.name for each in model.outputs]]


def case_error_unknown_model():
    infer("nosuch", PandasCodec.encode_request(FLOWERS))


def case_error_unknown_input():
    infer("iris", PandasCodec.encode_request(FLOWERS.rename(columns={"petal_width": "middle"})))


def said(error):
    return error.code, InferenceErrorResponse.model_validate_json(error.read()).error


if __name__ == "__main__":
    asyncio.run(run(urllib.error.HTTPError, said))
