"""Flags in Microsoft's schema, evaluated by its own library: users, groups, percentages, time windows, variants.

The user is the owner; the groups are the plan, and `guest` for guests. Which variant a percentage gives is a hash of
owner and flag: the same on every host, for as long as the flag's allocation is the same.
"""

import logging
from typing import Any, cast

from shared.flags.base import Assignment
from shared.principal import Principal

type Json = dict[str, Any]

log = logging.getLogger("companion.flags")


class Evaluator:
    """One state of the flags: `{"feature_management": {"feature_flags": […]}}`."""

    def __init__(self, configuration: Json) -> None:
        """
        Raises:
            ValueError: it is not in Microsoft's schema at all.
        """
        held: Any = configuration.get("feature_management", {})
        flags: Any = cast(Json, held).get("feature_flags", []) if isinstance(held, dict) else None
        if not isinstance(flags, list):
            raise ValueError("not the schema of feature flags")
        for flag in cast(list[Any], flags):
            _drop_empty_ranges(flag)
        # Imported where there are flags.
        import featuremanagement  # noqa: PLC0415

        self._context = featuremanagement.TargetingContext
        self._manager: Any = featuremanagement.FeatureManager(configuration)  # its overloads know no context
        self._names: frozenset[str] = frozenset()
        try:
            self._names = frozenset(filter(self._works, self._manager.list_feature_flag_names()))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not the schema of feature flags: {error}") from error

    @property
    def names(self) -> frozenset[str]:
        return self._names

    def assign(self, flag: str, caller: Principal) -> Assignment | None:
        """See `Flags`."""
        if flag not in self._names:
            return None
        return self._assign(flag, caller.owner, [caller.plan, *(["guest"] if caller.is_guest else [])])

    def _assign(self, flag: str, user: str, groups: list[str]) -> Assignment:
        who = self._context(user_id=user, groups=groups)
        variant = self._manager.get_variant(flag, who)
        if variant is not None:
            return Assignment(variant.name, variant.configuration)
        return Assignment("on" if self._manager.is_enabled(flag, who) else "off")

    def _works(self, flag: str) -> bool:
        """A flag that cannot be evaluated is as good as none: it must not stop a turn."""
        from featuremanagement._defaultfilters import TargetingException  # noqa: PLC0415

        try:
            self._assign(flag, "", [])
        except (ValueError, TypeError, KeyError, AttributeError, TargetingException) as error:
            log.warning("flags.unusable", extra={"flag": flag, "reason": str(error)})
            return False
        return True


def _drop_empty_ranges(flag: Any) -> None:
    """A percentile that ends where it begins is nobody's, and the library takes it for a mistake of the whole flag."""
    allocation: Any = cast(Json, flag).get("allocation") if isinstance(flag, dict) else None
    ranges: Any = cast(Json, allocation).get("percentile") if isinstance(allocation, dict) else None
    if isinstance(ranges, list):
        allocation["percentile"] = [each for each in cast(list[Any], ranges) if not _is_empty(each)]


def _is_empty(each: Any) -> bool:
    return isinstance(each, dict) and cast(Json, each).get("to") == cast(Json, each).get("from", 0)
