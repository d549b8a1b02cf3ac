"""What tokens cost: by the router's deployments where they have prices, else by COMPANION_PRICES."""

from typing import Protocol

from shared.settings import UsageSettings

_MILLION = 1_000_000


class Priced(Protocol):
    """The router, as far as money goes."""

    def price(self, model: str, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float: ...


def cost_of(
    router: Priced,
    settings: UsageSettings,
    model: str,
    *,
    input_tokens: int,
    output_tokens: int,
    cached_tokens: int = 0,
) -> float:
    """US dollars for so many tokens of a model, by the name that clients use; 0.0 where nobody set a price.

    >>> cost_of(router, settings, "companion", input_tokens=1_000_000, output_tokens=0)   # {"*": {"input": 2}}
    2.0
    """
    cost = router.price(model, input_tokens, output_tokens, cached_tokens)
    if cost:
        return cost
    prices = settings.prices.get(model) or settings.prices.get("*")
    if prices is None:
        return 0.0
    full = prices.get("input", 0.0)
    cached = min(cached_tokens, input_tokens)
    return (
        (input_tokens - cached) * full + cached * prices.get("cached", full) + output_tokens * prices.get("output", 0.0)
    ) / _MILLION
