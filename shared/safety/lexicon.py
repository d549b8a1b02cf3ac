"""A moderator of a few words, for a laptop without a service: the same judgement every time, and not a wise one."""

import re
from collections.abc import Sequence
from functools import cache

from shared.safety.base import CATEGORIES, Content, Judgement

MODEL = "companion-moderation-lexicon"
FLAGGED_FROM = 0.5

_WORDS = {
    "harassment": (
        r"you (?:are|'re) (?:an? )?(?:idiot|moron|worthless|pathetic|stupid)|nobody (?:likes|loves) you"
        r"|shut up"
    ),
    "harassment/threatening": (
        r"i(?:'ll| will| am going to|'m going to) (?:kill|hurt|find|beat|destroy) you"
        r"|watch your back"
    ),
    "hate": r"(?:all|those|these) \w+ (?:people )?are (?:vermin|subhuman|animals|parasites)|go back to your country",
    "hate/threatening": r"(?:kill|exterminate|wipe out|gas) (?:all|every|those) \w+",
    "illicit": r"how (?:to|do i|can i) (?:steal|launder|hotwire|shoplift|forge|pick a lock|cook meth|make drugs)",
    "illicit/violent": r"(?:make|build|assemble) (?:a |an )?(?:pipe )?(?:bomb|explosive|nerve agent|silencer)",
    "self-harm": r"(?:cut|cutting|hurt|hurting|harm|harming) myself|self-harm|suicide|kill myself",
    "self-harm/intent": r"i (?:want|am going|plan|intend|'m going) to (?:die|kill myself|end my life|cut myself)",
    "self-harm/instructions": r"how (?:to|do i|can i) (?:kill myself|commit suicide|cut myself|hang myself|overdose)",
    "sexual": r"explicit sex|porn(?:ography)?|erotic(?:a)?|sexual intercourse",
    "sexual/minors": r"(?:sexual|nude|naked|erotic) (?:\w+ )?(?:child|children|minor|minors|kid|kids)",
    "violence": (
        r"(?:kill|murder|stab|shoot|behead|torture) (?:him|her|them|you|all|every|people|someone"
        r"|somebody)|massacre"
    ),
    "violence/graphic": (
        r"(?:guts|entrails|brains) (?:spill|splatter|everywhere)|blood (?:sprayed|gushing|everywhere)"
        r"|dismember"
    ),
}


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """Compiled on first use."""
    return {category: re.compile(rf"\b(?:{words})\b", re.IGNORECASE) for category, words in _WORDS.items()}


class Lexicon:
    """See `Moderator`. Images it cannot see."""

    model = MODEL

    async def judge(self, contents: Sequence[Content]) -> list[Judgement]:
        return [_judged(content.text) for content in contents]

    async def find_attack(self, text: str) -> bool:
        del text
        return False

    async def close(self) -> None:
        return None


def _judged(text: str) -> Judgement:
    """One hit scores 0.8, each further one halves what is missing to 1."""
    hits = {category: len(_patterns()[category].findall(text)) for category in CATEGORIES}
    scores = {category: 1 - 0.2 * 0.5 ** (count - 1) if count else 0.0001 for category, count in hits.items()}
    flagged = frozenset(category for category, score in scores.items() if score >= FLAGGED_FROM)
    inputs = {category: ["text"] if text else [] for category in CATEGORIES}
    return Judgement(flagged=flagged, scores=scores, inputs=inputs)
