"""What MLServer's unmodified codecs make of our answers: `python use_mlserver.py URL` prints it as JSON.

They make the request's document and read the answer's; it is posted as MLServer's users post it, nulls included. Runs
in an environment of its own (mlserver.txt), without pytest or anything of ours. Every function called `case_…` is a
case: {"name": {"result": …}} or, where an error was answered, {"name": {"status": …, "message": …}}.
"""

import datetime
import json
import sys
import urllib.error
import urllib.request

import numpy as np
import pandas as pd
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
EXTREMES = {
    "BOOL": np.array([True, False, True]),
    **{
        kind.upper(): np.array([np.iinfo(kind).min, 1, np.iinfo(kind).max], dtype=kind)
        for kind in ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
    },
    "FLOAT16": np.array([-65504, 0.5, 65504], dtype=np.float16),
    "FLOAT32": np.array([np.finfo(np.float32).min, 0.1, np.finfo(np.float32).tiny], dtype=np.float32),
    "FLOAT64": np.array([np.finfo(np.float64).min, 0.1, np.finfo(np.float64).tiny]),
}
TEXTS = ["", "naïve ☃ 🎉", 'quote " and \\ and \n']
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
    inputs = [NumpyCodec.encode_input(name, array) for name, array in EXTREMES.items()]
    back = {output.name: output for output in infer("echo", InferenceRequest(inputs=inputs)).outputs}
    kinds = {name: NumpyCodec.decode_output(back[name]) for name in EXTREMES}
    return [
        name
        for name, array in EXTREMES.items()
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


def case_metadata():
    server = MetadataServerResponse.model_validate(ask(""))
    model = MetadataModelResponse.model_validate(ask("/models/pair"))
    return [server.name, model.name, [each.name for each in model.inputs], [each.name for each in model.outputs]]


def case_error_unknown_model():
    infer("nosuch", PandasCodec.encode_request(FLOWERS))


def case_error_unknown_input():
    infer("iris", PandasCodec.encode_request(FLOWERS.rename(columns={"petal_width": "middle"})))


def main() -> None:
    answers = {}
    for name, case in list(globals().items()):
        if name.startswith("case_"):
            try:
                answers[name] = {"result": case()}
            except urllib.error.HTTPError as error:
                said = InferenceErrorResponse.model_validate_json(error.read())
                answers[name] = {"status": error.code, "message": said.error}
            except Exception as error:
                answers[name] = {"status": type(error).__name__, "message": str(error)}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
