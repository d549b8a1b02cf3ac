"""Story: a LangChain application swaps its base URL."""

from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr


def chat_model(base_url: str, *, use_responses_api: bool, use_previous_response_id: bool = False) -> ChatOpenAI:
    return ChatOpenAI(
        model="companion",
        base_url=base_url,
        api_key=SecretStr("local"),
        use_responses_api=use_responses_api,
        use_previous_response_id=use_previous_response_id,
    )


async def streamed(model: ChatOpenAI, messages: list[BaseMessage]) -> AIMessageChunk:
    whole: AIMessageChunk | None = None
    async for chunk in model.astream(messages):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole


async def second_answer(model: ChatOpenAI) -> str:
    messages: list[BaseMessage] = [HumanMessage("My name is Ada.")]
    messages.append(await streamed(model, messages))
    messages.append(HumanMessage("What is my name?"))
    return (await streamed(model, messages)).text


async def test_chat_completions_remember(base_url: str) -> None:
    assert "Ada" in await second_answer(chat_model(base_url, use_responses_api=False))


async def test_responses_with_the_whole_history_remember(base_url: str) -> None:
    assert "Ada" in await second_answer(chat_model(base_url, use_responses_api=True))


async def test_responses_with_the_state_on_the_server_remember(base_url: str) -> None:
    """Only the newest message is sent: the rest is the previous response's."""
    assert "Ada" in await second_answer(chat_model(base_url, use_responses_api=True, use_previous_response_id=True))


async def test_usage_is_reported(base_url: str) -> None:
    answer = await chat_model(base_url, use_responses_api=True).ainvoke("Hello")

    assert answer.usage_metadata is not None
    assert answer.usage_metadata["total_tokens"] > 0
