"""Tries, fallback, the breaker and the budget: before the first event only. Time is virtual."""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import nullcontext
from datetime import date
from typing import Any

import pytest

from shared.errors import (
    AssistantError,
    ContentBlocked,
    InvalidRequest,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    UpstreamError,
)
from shared.models.base import (
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    ModelEvent,
    ModelRequest,
    Origin,
    TextDelta,
    Usage,
)
from shared.models.deployment import Capabilities, Deployment, Prices, Route, Share, Step
from shared.models.router import Router
from shared.models.scripted import ScriptedModel, says
from tests.sim.loop import VirtualLoop, run_virtual

DOWN = UpstreamError("down")


def virtually[T](program: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run on a loop whose time is virtual."""

    async def run(loop: VirtualLoop) -> T:
        return await program()

    return run_virtual(run)


def deployment(name: str, model: Any, **fields: Any) -> Deployment:
    return Deployment(name=name, upstream=f"up-{name}", model=model, **fields)


def request(**fields: Any) -> ModelRequest:
    given: Json = {
        "model": "companion",
        "items": [],
        "origin": Origin(owner="ada", thread="t", turn="resp_1"),
        **fields,
    }
    return ModelRequest(**given)


async def said(router: Router, asked: ModelRequest) -> str:
    return "".join([event.text async for event in router.stream(asked) if isinstance(event, TextDelta)])


def routed(*deployments: Deployment, **fields: Any) -> Router:
    return Router([Route(id="companion", deployments=deployments, **fields)])


class Flaky:
    """Fails as its chance says, else answers two words; counts its calls."""

    def __init__(self, fails: Callable[[], AssistantError | None], *, seconds: float = 0.1) -> None:
        self.fails = fails
        self.seconds = seconds
        self.calls = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        self.calls += 1
        failure = self.fails()
        await asyncio.sleep(self.seconds)
        if failure is not None:
            raise failure
        yield ItemStarted(0, "message")
        yield TextDelta(0, "one two")
        yield ItemDone(0)
        yield Finished(usage=Usage(input_tokens=10, output_tokens=2))

    async def close(self) -> None:
        """Nothing is open."""


class TestTries:
    @pytest.mark.parametrize("failure", [DOWN, RateLimited("slow"), ModelUnavailable("away"), ModelTimeout("late")])
    def test_a_failure_before_the_first_event_is_tried_again(self, failure: AssistantError) -> None:
        model = ScriptedModel([[failure], says("hi")])

        assert virtually(lambda: said(routed(deployment("a", model)), request())) == "hi"

    @pytest.mark.parametrize("failure", [InvalidRequest("no", param="input"), ContentBlocked("no")])
    def test_a_refused_request_is_not_tried_again(self, failure: AssistantError) -> None:
        model = ScriptedModel([[failure]])

        with pytest.raises(InvalidRequest):
            virtually(lambda: said(routed(deployment("a", model)), request()))
        assert len(model.requests) == 1

    def test_after_three_tries_the_error_is_told(self) -> None:
        model = ScriptedModel([[DOWN], [DOWN], [DOWN]])

        with pytest.raises(UpstreamError):
            virtually(lambda: said(routed(deployment("a", model)), request()))
        assert len(model.requests) == 3

    def test_the_next_of_the_chain_is_asked_without_a_wait(self) -> None:
        first, second = ScriptedModel([[DOWN]]), ScriptedModel([says("hi")])
        asked = request()

        async def program() -> tuple[str, float]:
            text = await said(routed(deployment("a", first), deployment("b", second)), asked)
            return text, asyncio.get_running_loop().time()

        assert virtually(program) == ("hi", 0.0)
        assert asked.origin
        assert [(call["deployment"], call["reason"], call["outcome"]) for call in asked.origin.calls] == [
            ("a", "primary", "failed"),
            ("b", "fallback", "ok"),
        ]

    def test_the_trace_says_why_a_better_one_was_not_asked(self) -> None:
        full = deployment("a", ScriptedModel([says("a")]), concurrency=1)
        down = deployment("b", ScriptedModel([]))
        asked = request()

        async def program() -> str:
            router = routed(full, down, deployment("c", ScriptedModel([says("c")])))
            down.health.breaker.state, down.health.breaker._until = "open", 99.0  # pyright: ignore[reportPrivateUsage]
            first = router.stream(request())
            await anext(first)
            text = await said(router, asked)
            await first.aclose()
            return text

        assert virtually(program) == "c"
        assert asked.origin
        assert [(call["deployment"], call.get("skipped")) for call in asked.origin.calls] == [
            ("a", "busy"),
            ("b", "breaker_open"),
            ("c", None),
        ]

    def test_a_break_after_the_first_event_is_raised_and_never_spliced(self) -> None:
        model = ScriptedModel([[ItemStarted(0, "message"), TextDelta(0, "half"), DOWN]])
        seen: list[ModelEvent] = []

        async def program() -> None:
            async for event in routed(deployment("a", model)).stream(request()):
                seen.append(event)

        with pytest.raises(UpstreamError):
            virtually(program)
        assert [type(event) for event in seen] == [ItemStarted, TextDelta]
        assert len(model.requests) == 1

    def test_retry_after_is_honoured(self) -> None:
        model = ScriptedModel([[RateLimited("slow", retry_after=3.0)], says("hi")])

        async def program() -> float:
            await said(routed(deployment("a", model)), request())
            return asyncio.get_running_loop().time()

        assert 3.0 <= virtually(program) <= 3.2

    def test_a_long_retry_after_is_the_clients_to_wait(self) -> None:
        model = ScriptedModel([[RateLimited("slow", retry_after=30.0)]])

        with pytest.raises(RateLimited) as caught:
            virtually(lambda: said(routed(deployment("a", model)), request()))
        assert caught.value.retry_after == 30.0

    def test_a_deployment_that_is_silent_is_given_up_at_its_first_token_time(self) -> None:
        silent, second = ScriptedModel([[100.0]]), ScriptedModel([says("hi")])

        async def program() -> tuple[str, float]:
            router = routed(deployment("a", silent, first_token=2.0), deployment("b", second))
            return await said(router, request()), asyncio.get_running_loop().time()

        assert virtually(program) == ("hi", 2.0)
        assert silent.closed_early == 1

    def test_the_deadline_is_passed_down_and_kept(self) -> None:
        model = ScriptedModel([[4.0, DOWN], [100.0]])

        async def program() -> float:
            with pytest.raises(ModelTimeout):
                await said(routed(deployment("a", model)), request(deadline=5.0))
            return asyncio.get_running_loop().time()

        assert virtually(program) == pytest.approx(5.0)
        assert model.requests[0].deadline == 5.0
        assert model.requests[1].deadline is not None
        assert model.requests[1].deadline <= 1.0

    def test_provisioned_capacity_spills_over_when_it_is_full(self) -> None:
        full, paid = ScriptedModel([[RateLimited("full", retry_after=20.0)]]), ScriptedModel([says("a"), says("b")])
        asked = request()

        async def program() -> list[str]:
            router = routed(deployment("ptu", full, kind="provisioned"), deployment("paygo", paid))
            return [await said(router, asked), await said(router, request())]

        assert virtually(program) == ["a", "b"]
        assert asked.origin
        assert [call["reason"] for call in asked.origin.calls] == ["primary", "spill"]

    def test_leaving_gives_back_the_deployments_place(self) -> None:
        only = deployment("a", ScriptedModel([says("a", "b")]), concurrency=1)

        async def program() -> None:
            stream = routed(only).stream(request())
            await anext(stream)
            assert only.health.in_flight == 1
            await stream.aclose()

        virtually(program)
        assert only.health.in_flight == 0

    def test_a_full_deployment_is_passed_over(self) -> None:
        first, second = ScriptedModel([says("a", "b")]), ScriptedModel([says("c")])

        async def program() -> str:
            router = routed(deployment("a", first, concurrency=1), deployment("b", second))
            stream = router.stream(request())
            await anext(stream)
            text = await said(router, request())
            await stream.aclose()
            return text

        assert virtually(program) == "c"


class TestMoney:
    def test_cost_is_by_the_prices_of_the_deployment_that_answered(self) -> None:
        usage = Usage(input_tokens=1_000_000, cached_tokens=400_000, output_tokens=100_000)
        model = ScriptedModel([says("a", usage=usage)])
        router = routed(deployment("a", model, prices=Prices(input=2.0, cached=0.5, output=10.0)))

        async def program() -> Finished:
            *_, last = [event async for event in router.stream(request())]
            assert isinstance(last, Finished)
            return last

        finished = virtually(program)
        assert finished.cost == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)
        assert (finished.deployment, finished.tries) == ("a", 1)

    def test_a_reservation_is_priced_by_the_dearest_that_may_answer(self) -> None:
        cheap = deployment("a", ScriptedModel(), prices=Prices(input=1.0, output=1.0))
        dear = deployment("b", ScriptedModel(), prices=Prices(input=3.0, output=4.0))
        router = routed(cheap, dear)

        assert router.price("companion", 1_000_000, 500_000) == 5.0
        assert router.price("unknown", 1, 1) == 0.0


class TestCapabilities:
    @pytest.mark.parametrize(
        ("fields", "able", "param"),
        [
            ({"tools": [{"type": "function", "name": "f"}]}, {"tools": False}, "tools"),
            ({"reasoning": {"effort": "low"}}, {"reasoning": False}, "reasoning.effort"),
            ({"text": {"format": {"type": "json_schema"}}}, {"structured": False}, "text.format"),
            (
                {"items": [{"type": "message", "role": "user", "content": [{"type": "input_image"}]}]},
                {"vision": False},
                "input",
            ),
        ],
    )
    def test_what_no_deployment_can_do_is_refused_naming_the_parameter(
        self, fields: Json, able: Json, param: str
    ) -> None:
        router = routed(deployment("a", ScriptedModel(), capabilities=Capabilities(**able)))

        with pytest.raises(InvalidRequest) as caught:
            virtually(lambda: said(router, request(**fields)))
        assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")

    def test_one_that_can_is_asked_instead(self) -> None:
        blind = deployment("a", ScriptedModel(), capabilities=Capabilities(tools=False))
        able = deployment("b", ScriptedModel([says("hi")]))

        assert virtually(lambda: said(routed(blind, able), request(tools=[{"type": "function", "name": "f"}]))) == "hi"

    @pytest.mark.parametrize(("percent", "is_refused"), [(50, True), (100, False)])
    def test_what_the_canary_alone_can_do_is_refused_to_all_unless_all_are_led_to_it(
        self, percent: float, is_refused: bool
    ) -> None:
        blind = deployment("old", ScriptedModel(), capabilities=Capabilities(tools=False))
        router = routed(blind, canary=Share(deployment=deployment("new", ScriptedModel()), percent=percent))
        asked = request(tools=[{"type": "function", "name": "f"}])

        with pytest.raises(InvalidRequest) if is_refused else nullcontext():
            router.check(router._table.routes["companion"], asked)  # pyright: ignore[reportPrivateUsage]

    def test_a_retired_deployment_is_not_asked(self) -> None:
        gone = deployment("a", ScriptedModel(), retires=date(2020, 1, 1))
        able = deployment("b", ScriptedModel([says("hi")]))

        assert virtually(lambda: said(routed(gone, able), request())) == "hi"

    def test_where_all_are_retired_the_model_is_said_to_be(self) -> None:
        router = routed(deployment("a", ScriptedModel(), retires=date(2020, 1, 1)))

        with pytest.raises(InvalidRequest) as caught:
            virtually(lambda: said(router, request()))
        assert (caught.value.param, caught.value.code) == ("model", "model_retired")

    def test_one_whose_window_is_too_small_is_passed_over(self) -> None:
        small = Share(
            deployment=deployment("new", ScriptedModel(), capabilities=Capabilities(window=2000)), percent=100
        )
        router = routed(deployment("old", ScriptedModel([says("hi")])), canary=small)

        assert virtually(lambda: said(router, request(tokens=1990))) == "hi"

    def test_an_estimate_alone_refuses_nothing(self) -> None:
        small = deployment("a", ScriptedModel([says("hi")]), capabilities=Capabilities(window=2000))

        assert virtually(lambda: said(routed(small), request(tokens=3000))) == "hi"


def chosen(router: Router, thread: str) -> str:
    asked = request(origin=Origin(owner="ada", thread=thread))
    return router.candidates(router._table.routes["companion"], asked)[0][0].name  # pyright: ignore[reportPrivateUsage]


class TestChoice:
    def test_weights_share_a_step_and_a_thread_stays_where_it_is(self) -> None:
        heavy, light = deployment("heavy", ScriptedModel()), deployment("light", ScriptedModel())
        step = Step(choices=((heavy, 3.0), (light, 1.0)))
        router = Router([Route(id="companion", steps=(step,))])

        first = [chosen(router, f"t{number}") for number in range(4000)]

        assert first == [chosen(router, f"t{number}") for number in range(4000)]
        assert 0.72 < first.count("heavy") / 4000 < 0.78

    def test_a_canary_gets_its_percent_of_the_threads_and_no_more_than_that_moves(self) -> None:
        old, new = deployment("old", ScriptedModel()), deployment("new", ScriptedModel())
        router = routed(old, canary=Share(deployment=new, percent=5))

        first = [chosen(router, f"t{number}") for number in range(8000)]

        assert 0.04 < first.count("new") / 8000 < 0.06

    def test_a_canary_that_fails_falls_back_to_the_chain(self) -> None:
        new, old = ScriptedModel([[DOWN]]), ScriptedModel([says("hi")])
        router = routed(deployment("old", old), canary=Share(deployment=deployment("new", new), percent=100))

        assert virtually(lambda: said(router, request())) == "hi"

    def test_a_shadow_is_asked_the_same_beside_the_answer_and_kept_for_the_operator(self) -> None:
        kept: list[tuple[str, Json]] = []

        async def keep(owner: str, result: Json) -> None:
            kept.append((owner, result))

        async def program() -> str:
            candidate = deployment("new", ScriptedModel([says("other")]), prices=Prices(input=1.0, output=1.0))
            route = Route(
                id="companion",
                deployments=(deployment("old", ScriptedModel([says("hi")])),),
                shadow=Share(deployment=candidate, percent=100),
            )
            router = Router([route], keep_shadow=keep)
            text = await said(router, request())
            await asyncio.sleep(1)
            return text

        assert virtually(program) == "hi"
        owner, result = kept[0]
        assert (owner, result["turn"], result["deployment"], result["text"]) == ("ada", "resp_1", "new", "other")
        assert result["cost"] == pytest.approx(15 / 1_000_000)

    def test_a_shadow_that_fails_disturbs_nobody(self) -> None:
        kept: list[Json] = []

        async def keep(owner: str, result: Json) -> None:
            kept.append(result)

        async def program() -> str:
            route = Route(
                id="companion",
                deployments=(deployment("old", ScriptedModel([says("hi")])),),
                shadow=Share(deployment=deployment("new", ScriptedModel([[DOWN]])), percent=100),
            )
            text = await said(Router([route], keep_shadow=keep), request())
            await asyncio.sleep(1)
            return text

        assert virtually(program) == "hi"
        assert kept[0]["error"] == "down"

    @pytest.mark.parametrize(
        "fields",
        [
            {"retires": date(2020, 1, 1)},
            {"capabilities": Capabilities(tools=False)},
            {"capabilities": Capabilities(window=2000)},
        ],
    )
    def test_a_shadow_that_may_or_can_not_answer_is_not_asked(self, fields: Json) -> None:
        candidate = ScriptedModel()

        async def keep(owner: str, result: Json) -> None:
            raise AssertionError((owner, result))

        async def program() -> str:
            route = Route(
                id="companion",
                deployments=(deployment("old", ScriptedModel([says("hi")])),),
                shadow=Share(deployment=deployment("new", candidate, **fields), percent=100),
            )
            asked = request(tools=[{"type": "function", "name": "f"}], tokens=3000)
            text = await said(Router([route], keep_shadow=keep), asked)
            await asyncio.sleep(1)
            return text

        assert virtually(program) == "hi"
        assert candidate.requests == []


class TestOutage:
    """A minute of virtual time; ten turns a second."""

    def test_three_in_ten_failing_calls_leave_almost_every_turn_answered(self) -> None:
        chance = random.Random(7)
        model = Flaky(lambda: DOWN if chance.random() < 0.3 else None)

        async def program() -> int:
            router = routed(deployment("a", model))
            return sum(await asyncio.gather(*(_turn(router, number * 0.1) for number in range(2000))))

        answered = virtually(program)
        assert answered >= 0.99 * 2000
        assert model.calls <= 1.6 * 2000

    def test_an_outage_opens_the_breaker_costs_few_calls_and_is_over_soon_after_it_ends(self) -> None:
        is_down = [False]
        model = Flaky(lambda: DOWN if is_down[0] else None)
        only = deployment("a", model)
        opened: list[float] = []
        back: list[float] = []

        async def watch() -> None:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(20)
            is_down[0] = True
            await until(lambda: only.health.breaker.state != "closed")
            opened.append(loop.time() - 20)
            await asyncio.sleep(80 - loop.time())
            is_down[0] = False
            await until(lambda: only.health.breaker.state == "closed")
            back.append(loop.time() - 80)

        async def program() -> int:
            router = routed(only)
            watching = asyncio.create_task(watch())
            await asyncio.gather(*(_turn(router, number * 0.1) for number in range(1000)))
            await watching
            return model.calls

        calls = virtually(program)
        assert opened[0] < 5
        assert back[0] < 10
        assert calls <= 1000 * 1.1

    def test_many_failures_at_one_moment_are_a_hiccup_and_no_outage(self) -> None:
        model = Flaky(lambda: DOWN)
        only = deployment("a", model)

        async def program() -> str:
            router = routed(only)
            await asyncio.gather(*(_turn(router, 0) for _ in range(15)))
            return only.health.breaker.state

        assert virtually(program) == "closed"

    def test_one_that_is_open_refuses_at_once_and_says_when_to_come_back(self) -> None:
        model = Flaky(lambda: DOWN)

        async def program() -> tuple[float, float | None]:
            router = routed(deployment("a", model))
            for _ in range(20):
                with pytest.raises(AssistantError):
                    await said(router, request())
            calls, began = model.calls, asyncio.get_running_loop().time()
            with pytest.raises(ModelUnavailable) as caught:
                await said(router, request())
            assert model.calls == calls
            return asyncio.get_running_loop().time() - began, caught.value.retry_after

        took, retry_after = virtually(program)
        assert took == 0.0
        assert retry_after is not None
        assert 0 < retry_after <= 6


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - looks from outside, as an operator would
        await asyncio.sleep(0.05)


async def _turn(router: Router, after: float) -> bool:
    await asyncio.sleep(after)
    try:
        return bool(await said(router, request(origin=Origin(owner="ada", thread=f"{after}"))))
    except AssistantError:
        return False


class Paced:
    """Begins after so long, and says its second word after so much more."""

    def __init__(self, *steps: tuple[float, float]) -> None:
        self._steps = iter(steps)
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        self.requests.append(request)
        first, silence = next(self._steps)
        await asyncio.sleep(first)
        yield ItemStarted(0, "message")
        yield TextDelta(0, "one ")
        await asyncio.sleep(silence)
        yield TextDelta(0, "two")
        yield ItemDone(0)
        yield Finished(usage=None, longest_silence=silence)

    async def close(self) -> None:
        """Nothing is open."""


class TestPatience:
    """A call is given up for another when it says nothing for longer than calls alike did."""

    def test_a_call_that_does_not_begin_as_others_did_is_given_up_for_another(self) -> None:
        model = Paced(*[(0.4, 0.1)] * 20, (1000.0, 0.1), (0.4, 0.1))

        async def program() -> tuple[str, float]:
            router = routed(deployment("a", model))
            for _ in range(20):
                await said(router, request())
            began = asyncio.get_running_loop().time()
            return await said(router, request()), asyncio.get_running_loop().time() - began

        text, took = virtually(program)
        assert text == "one two"
        assert 3 * 0.4 < took < 3 * 0.4 + 0.2 + 0.5

    def test_nothing_is_given_up_before_enough_is_known(self) -> None:
        model = Paced(*[(0.4, 0.1)] * 19, (1000.0, 0.1))

        async def program() -> float:
            router = routed(deployment("a", model))
            for _ in range(20):
                await said(router, request())
            return asyncio.get_running_loop().time()

        assert virtually(program) > 1000

    @pytest.mark.parametrize(
        "unlike",
        [{"reasoning": {"effort": "high"}}, {"tokens": 100_000}, {"tools": [{"type": "function", "name": "f"}]}],
    )
    def test_a_call_of_another_kind_is_not_judged_by_these(self, unlike: Json) -> None:
        model = Paced(*[(0.4, 0.1)] * 20, (30.0, 0.1))

        async def program() -> str:
            router = routed(deployment("a", model))
            for _ in range(20):
                await said(router, request())
            return await said(router, request(**unlike))

        assert virtually(program) == "one two"
        assert len(model.requests) == 21

    def test_a_server_that_has_become_slower_is_waited_for_and_seen_to_be_slower(self) -> None:
        """From 0.1 s to 5 s at once, a turn a second: a few are refused; then nothing is given up any more."""
        model = Paced(*[(0.1, 0.1)] * 60, *[(5.0, 0.1)] * 400)

        async def program() -> tuple[int, int]:
            router = routed(deployment("a", model))
            for _ in range(60):
                await said(router, request())
            failed = sum(not each for each in await asyncio.gather(*(_turn(router, number) for number in range(100))))
            calls = len(model.requests)
            failed += sum([not await _turn(router, 0) for _ in range(20)])
            return failed, len(model.requests) - calls

        failed, last = virtually(program)
        assert failed <= 10
        assert last == 20

    def test_the_silence_that_is_too_long_is_told_with_the_call_and_is_longer_for_the_last_one(self) -> None:
        model = Paced(*[(0.1, 0.5)] * 20, *[(0.1, 0.1)] * 2)

        async def program() -> None:
            router = routed(deployment("a", model))
            for _ in range(21):
                await said(router, request())
            await said(router, request(is_last_try=True))

        virtually(program)
        assert model.requests[19].silence is None
        assert [asked.silence for asked in model.requests[20:]] == [pytest.approx(1.0), 60.0]

    def test_what_the_operator_set_goes_first(self) -> None:
        model = Paced(*[(0.1, 0.1)] * 21)

        async def program() -> None:
            router = routed(deployment("a", model, silence=7.0))
            for _ in range(21):
                await said(router, request())

        virtually(program)
        assert model.requests[20].silence == 7.0
