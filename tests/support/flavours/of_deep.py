"""PyTorch, Transformers, Sentence Transformers, Keras and ONNX: tiny models, made here and trained on nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .parts import Asked, deep_case, seed

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "day", "night", "a"]
TEXTS = ["a good day", "bad night", "a bad bad day"]


def single() -> Any:
    return seed().normal(size=(4, 3)).astype("float32")


def signature_of(data: Any, result: Any) -> Any:
    from mlflow.models import infer_signature

    return infer_signature(data, result)


# ---- PyTorch ---------------------------------------------------------------------------------------


def _network() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)).eval()


def _save_torch(folder: Path, data: Any, result: Any, **options: Any) -> Asked:
    import mlflow.pytorch

    signature = signature_of(data, result)
    mlflow.pytorch.save_model(_network(), str(folder), signature=signature, pip_requirements=["mlflow"], **options)
    return Asked(data)


def _answered(data: Any) -> Any:
    import torch

    with torch.no_grad():
        return _network()(torch.from_numpy(data)).numpy()


@deep_case
def torch_pickled(folder: Path) -> Asked:
    return _save_torch(folder, single(), _answered(single()), serialization_format="pickle")


@deep_case
def torch_exported(folder: Path) -> Asked:
    data = single()
    return _save_torch(folder, data, _answered(data), serialization_format="pt2", input_example=data)


@deep_case
def torch_of_a_table(folder: Path) -> Asked:
    import pandas as pd

    data = pd.DataFrame(single(), columns=["a", "b", "c"])
    return _save_torch(folder, data, pd.DataFrame(_answered(single())), serialization_format="pickle")


@deep_case
def torch_unsigned(folder: Path) -> Asked:
    import mlflow.pytorch

    options = {"serialization_format": "pickle", "pip_requirements": ["mlflow"]}
    mlflow.pytorch.save_model(_network(), str(folder), **options)
    # by MLflow's own form the floats of JSON are doubles, which such a network does not take
    return Asked(single(), records=False, instances=False, invocations=False)


@deep_case
def torch_in_a_python_model(folder: Path) -> Asked:
    """Tensors as they are, one that has a gradient too."""
    from ..code_models import save_code_model

    source = """
    import mlflow, torch

    class Own(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            found = torch.from_numpy(model_input.copy()).requires_grad_()
            return {"doubled": found * 2, "half": found.detach()[:, 0].to(torch.float16)}
    """
    save_code_model(folder, source, signature=signature_of(single(), None))
    return Asked(single(), predict=lambda data: {"doubled": data * 2, "half": data[:, 0].astype("float16")})


# ---- Transformers ----------------------------------------------------------------------------------


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {name: f"[{name[:3].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")}
    return PreTrainedTokenizerFast(tokenizer_object=made, mask_token="[MASK]", model_max_length=32, **special)


def _bert(kind: str, **options: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes, **options)
    return getattr(transformers, kind)(config).eval()


def _save_pipeline(folder: Path, task: str, model: Any, result: Any, **options: Any) -> Asked:
    import mlflow.transformers
    import transformers

    pipeline = transformers.pipeline(task, model=model, tokenizer=_tokenizer())
    mlflow.transformers.save_model(
        pipeline, str(folder), signature=signature_of(TEXTS, result), pip_requirements=["mlflow"], **options
    )
    v2 = [{"name": "input-0", "datatype": "BYTES", "shape": [3], "data": TEXTS}]
    return Asked(TEXTS, v2=v2)


@deep_case
def text_classification(folder: Path) -> Asked:
    import pandas as pd

    model = _bert("BertForSequenceClassification", id2label={0: "negative", 1: "positive"})
    return _save_pipeline(folder, "text-classification", model, pd.DataFrame({"label": ["positive"], "score": [0.5]}))


@deep_case
def fill_mask(folder: Path) -> Asked:
    asked = _save_pipeline(folder, "fill-mask", _bert("BertForMaskedLM"), ["day"])
    masked = ["a good [MASK]", "bad [MASK]"]
    v2 = [{"name": "input-0", "datatype": "BYTES", "shape": [2], "data": masked}]
    return Asked(masked, asked.params, v2=v2)


@deep_case
def text_generation(folder: Path) -> Asked:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(WORDS), n_positions=32, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    inference = {"max_new_tokens": 4, "do_sample": False}
    return _save_pipeline(folder, "text-generation", model, ["a good day"], model_config=inference)


@deep_case
def embeddings_of_a_pipeline(folder: Path) -> Asked:
    return _save_pipeline(folder, "feature-extraction", _bert("BertModel"), seed().normal(size=(3, 16)))


@deep_case
def sentence_embeddings(folder: Path) -> Asked:
    import mlflow.sentence_transformers
    from sentence_transformers import SentenceTransformer, models

    folder.parent.mkdir(parents=True, exist_ok=True)
    local = str(folder.parent / "bert")
    _bert("BertModel").save_pretrained(local)
    _tokenizer().save_pretrained(local)
    encoder = models.Transformer(local)
    pooling = models.Pooling(16)
    model = SentenceTransformer(modules=[encoder, pooling], device="cpu")
    mlflow.sentence_transformers.save_model(
        model, str(folder), signature=signature_of(TEXTS, model.encode(TEXTS)), pip_requirements=["mlflow"]
    )
    v2 = [{"name": "input-0", "datatype": "BYTES", "shape": [3], "data": TEXTS}]
    return Asked(TEXTS, v2=v2)


# ---- Keras, ONNX -----------------------------------------------------------------------------------


@deep_case
def keras_on_torch(folder: Path) -> Asked:
    import keras
    import mlflow.keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    signature = signature_of(single(), model.predict(single(), verbose=0))
    mlflow.keras.save_model(model, str(folder), signature=signature, pip_requirements=["mlflow"])
    return Asked(single())


@deep_case
def onnx_graph(folder: Path) -> Asked:
    import mlflow.onnx
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.arange(6, dtype="float32").reshape(3, 2), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    result = single() @ np.arange(6, dtype="float32").reshape(3, 2)
    signature = signature_of({"x": single()}, {"y": result})
    mlflow.onnx.save_model(model, str(folder), signature=signature, pip_requirements=["mlflow"])
    return Asked({"x": single()}, records=[{"x": row} for row in single().tolist()])
