"""Stock `langchain-openai`: two streamed turns by chat completions, by responses, and with the state on the server."""

import json
import os

from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr


def model(*, use_responses_api: bool, use_previous_response_id: bool = False) -> ChatOpenAI:
    return ChatOpenAI(
        model="companion",
        base_url=os.environ["BASE_URL"],
        api_key=SecretStr("local"),
        use_responses_api=use_responses_api,
        use_previous_response_id=use_previous_response_id,
        stream_usage=True,
    )


def streamed(chat: ChatOpenAI, messages: list[BaseMessage]) -> AIMessageChunk:
    whole: AIMessageChunk | None = None
    for chunk in chat.stream(messages):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] > 0
    return whole


def converse(chat: ChatOpenAI) -> list[str]:
    messages: list[BaseMessage] = []
    answers: list[str] = []
    for text in ("My name is Ada.", "What is my name?"):
        messages.append(HumanMessage(text))
        messages.append(streamed(chat, messages))
        answers.append(messages[-1].text)
    return answers


answers = {
    "chat": converse(model(use_responses_api=False)),
    "responses": converse(model(use_responses_api=True)),
    # Only the newest message is sent: the rest is the previous response's.
    "state on the server": converse(model(use_responses_api=True, use_previous_response_id=True)),
    "plain": [model(use_responses_api=True).invoke("Hello").text],
}
print(json.dumps(answers))
