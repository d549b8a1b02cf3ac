"""Story: an agent built with `openai-agents` keeps its session in Companion."""

from agents import Agent, ModelSettings, OpenAIConversationsSession, OpenAIResponsesModel, Runner, function_tool
from agents.items import TResponseInputItem
from openai import AsyncOpenAI


async def say(agent: Agent[None], text: str, session: OpenAIConversationsSession) -> str:
    # The SDK's session is a property where its own protocol says attribute; it is used as documented.
    result = Runner.run_streamed(agent, text, session=session)  # pyright: ignore[reportArgumentType]
    async for _ in result.stream_events():
        pass
    return str(result.final_output)


def role(item: TResponseInputItem) -> object:
    return item.get("role")


async def test_a_session_is_a_conversation(base_url: str) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key="local") as client:
        model = OpenAIResponsesModel("companion", client)
        agent = Agent[None](name="Aide", instructions="Be brief.", model=model, model_settings=ModelSettings())
        session = OpenAIConversationsSession(openai_client=client)

        await say(agent, "My name is Ada.", session)
        answer = await say(agent, "What is my name?", session)

        assert "Ada" in answer
        assert [role(item) for item in await session.get_items()] == ["user", "assistant"] * 2


async def test_another_process_continues_the_session(base_url: str) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key="local") as client:
        agent = Agent[None](name="Aide", model=OpenAIResponsesModel("companion", client))
        session = OpenAIConversationsSession(openai_client=client)
        await say(agent, "My name is Ada.", session)
        await session.get_items()

        again = OpenAIConversationsSession(conversation_id=session.session_id, openai_client=client)

        assert "Ada" in await say(agent, "What is my name?", again)


async def test_the_last_item_is_taken_back(base_url: str) -> None:
    async with AsyncOpenAI(base_url=base_url, api_key="local") as client:
        agent = Agent[None](name="Aide", model=OpenAIResponsesModel("companion", client))
        session = OpenAIConversationsSession(openai_client=client)
        await say(agent, "My name is Ada.", session)

        taken = await session.pop_item()

        assert taken is not None
        assert role(taken) == "assistant"
        assert [role(item) for item in await session.get_items()] == ["user"]


async def test_a_tool_call_and_its_output_are_kept_once_each(base_url: str) -> None:
    asked: list[str] = []

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return f"Rain in {city}"

    async with AsyncOpenAI(base_url=base_url, api_key="local") as client:
        agent = Agent[None](name="Aide", tools=[weather], model=OpenAIResponsesModel("companion", client))
        session = OpenAIConversationsSession(openai_client=client)

        await say(agent, 'call weather {"city": "Oslo"}', session)

        assert asked == ["Oslo"]
        items = [item.get("type", "message") for item in await session.get_items()]
        assert items == ["message", "function_call", "function_call_output", "message"]
