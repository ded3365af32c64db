"""MLflow's agents and chat models are told by the task in their metadata: a text is a message of their user."""

from __future__ import annotations

from typing import Any

import pytest

from modelhub.serving.protocol.worker_spec import WorkerSpec
from modelhub.serving.workers.load.mlflow import load
from modelhub.serving.workers.model.served import ServedModel
from support.code_models import save_code_model
from support.files import send
from support.quiet_mlflow import quiet

SOURCES = {
    "agent/v1/responses": """
        from mlflow.pyfunc import ResponsesAgent
        from mlflow.types.responses import ResponsesAgentResponse

        class Own(ResponsesAgent):
            def predict(self, request):
                told = str((request.custom_inputs or {}).get("tone", ""))
                text = str(request.input[-1].content) + told
                return ResponsesAgentResponse(output=[self.create_text_output_item(text=text.upper(), id="1")])
        """,
    "agent/v2/chat": """
        from mlflow.pyfunc import ChatAgent
        from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse

        class Own(ChatAgent):
            def predict(self, messages, context=None, custom_inputs=None):
                text = messages[-1].content + str((custom_inputs or {}).get("tone", ""))
                return ChatAgentResponse(messages=[ChatAgentMessage(role="assistant", content=text.upper(), id="1")])
        """,
    "agent/v1/chat": """
        from mlflow.pyfunc import ChatModel
        from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage

        class Own(ChatModel):
            def predict(self, context, messages, params=None):
                text = messages[-1].content + str((params.custom_inputs or {}).get("tone", ""))
                message = ChatMessage(role="assistant", content=text.upper())
                return ChatCompletionResponse(choices=[ChatChoice(index=0, message=message)])
        """,
}


@pytest.fixture(scope="module", params=SOURCES)
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_imported: None) -> Any:
    folder = tmp_path_factory.mktemp("agents") / "agent"
    save_code_model(folder, SOURCES[request.param])
    with quiet():
        return load(WorkerSpec("agent", "1", 0, 0, "", "", str(folder), "", "/"))


def said(data: Any) -> Any:
    """The text in the answer of any of them."""
    if "output" in data:
        return data["output"][0]["content"][0]["text"]
    return data["messages"][0]["content"] if "messages" in data else data["choices"][0]["message"]["content"]


def test_a_text(agent: ServedModel) -> None:
    status, answer = send(agent, {"text": "hello"})
    assert (status, said(answer["data"])) == (200, "HELLO")
    assert said(send(agent, {"text": ["hello"], "custom_inputs": {"tone": "!"}})[1]["data"]) == "HELLO!"


def test_a_text_by_the_other_doors(agent: ServedModel) -> None:
    status, answer = send(agent, {"instances": ["hello"]}, kind="v1_predict")
    assert (status, [said(each) for each in answer["predictions"]]) == (200, ["HELLO"])
    assert "HELLO" in send(agent, {"text_input": "hello"}, kind="generate")[1]["text_output"]


def test_what_is_no_message(agent: ServedModel) -> None:
    for body, word in (
        ({"text": ["a", "b"]}, "one message of its user"),
        ({"text": 5}, "takes text"),
        ({"text": "a", "other": 1}, "which nothing reads"),
    ):
        status, answer = send(agent, body)
        assert (status, word in answer["message"]) == (400, True), answer
