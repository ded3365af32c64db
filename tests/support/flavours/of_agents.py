"""MLflow's agents and chat models, asked as their own clients do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..code_models import save_code_model
from .parts import Asked, case

MESSAGES = [{"role": "user", "content": "hello"}]


def save(folder: Path, source: str, field: str) -> Asked:
    save_code_model(folder, source)
    asked: dict[str, Any] = {field: MESSAGES}
    return Asked(asked, v2=False, records=[asked], instances=[asked], invocations=asked)


@case
def responses_agent(folder: Path) -> Asked:
    source = """
    from mlflow.pyfunc import ResponsesAgent
    from mlflow.types.responses import ResponsesAgentResponse

    class Own(ResponsesAgent):
        def predict(self, request):
            item = self.create_text_output_item(text=str(request.input[-1].content), id="1")
            return ResponsesAgentResponse(output=[item])
    """
    return save(folder, source, "input")


@case
def chat_agent(folder: Path) -> Asked:
    source = """
    from mlflow.pyfunc import ChatAgent
    from mlflow.types.agent import ChatAgentMessage, ChatAgentResponse

    class Own(ChatAgent):
        def predict(self, messages, context=None, custom_inputs=None):
            answer = ChatAgentMessage(role="assistant", content=messages[-1].content.upper(), id="1")
            return ChatAgentResponse(messages=[answer])
    """
    return save(folder, source, "messages")


@case
def chat_model(folder: Path) -> Asked:
    source = """
    from mlflow.pyfunc import ChatModel
    from mlflow.types.llm import ChatChoice, ChatCompletionResponse, ChatMessage

    class Own(ChatModel):
        def predict(self, context, messages, params):
            message = ChatMessage(role="assistant", content=messages[-1].content.upper())
            return ChatCompletionResponse(choices=[ChatChoice(index=0, message=message)], created=1)
    """
    return save(folder, source, "messages")
