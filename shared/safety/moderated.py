"""A guardrail that asks a moderator: what it flags does not get through."""

from shared.safety.base import Blocked, Content, Judgement, Moderator, TextFilter


class Moderated:
    """See `Guardrail`. The input is judged before any model sees it, an answer while it streams."""

    judges_output = True

    def __init__(self, moderator: Moderator) -> None:
        self._moderator = moderator

    async def check_input(self, content: Content) -> None:
        refuse(await self._moderator.judge([content]), "The input")

    def text_filter(self) -> TextFilter | None:
        return None

    async def check_output(self, text: str) -> None:
        refuse(await self._moderator.judge([Content(text=text)]), "The answer")

    async def check_tool_output(self, text: str) -> str:
        attack = await self._moderator.find_attack(text)
        if attack:
            raise Blocked("The tool's output tries to give instructions.")
        return text

    async def close(self) -> None:
        await self._moderator.close()


def refuse(judgements: list[Judgement], what: str) -> None:
    """Raises `Blocked` where a category is flagged."""
    flagged = sorted({category for judgement in judgements for category in judgement.flagged})
    if flagged:
        raise Blocked(f"{what} was refused by the content policy: {', '.join(flagged)}.")
