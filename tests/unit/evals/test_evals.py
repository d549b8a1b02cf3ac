"""Evaluation, offline: datasets, graders, targets, comparison, report, and datasets made of feedback and shadows."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_evals import Case, Dataset

from evals.collect import collect
from evals.compare import difference, interval
from evals.graders import GRADERS, Answer, Exact, Includes, Judged, MatchesSchema, Rule, Within
from evals.report import CaseResult, Run, html_page, terminal_table
from evals.run import evaluate, main, read_dataset
from evals.targets import Client, Target
from functions._edge import override_app
from localhost.testing import app_on_runtime, serving
from shared.bootstrap import build_app
from shared.models.scripted import ScriptedModel, says
from shared.settings import Settings
from shared.storage.base import STATE, Create
from tests.unit.turns.asking import CALLER, ask
from tests.unit.turns.conftest import MakeApp, make_app

__all__ = ["make_app"]

LOCAL = "local/companion"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT", "COSMOS_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


async def graded(grader: Any, text: str, expected: Any = None, **fields: Any) -> float:
    """What a grader gives an answer."""

    async def answer(inputs: Any) -> Answer:
        del inputs
        return Answer(text=text, **fields)

    case = Case[Any, Any, Any](name="only", inputs="x", expected_output=expected, evaluators=(grader,))
    dataset = Dataset[Any, Any, Any](name="d", cases=[case])
    report = await dataset.evaluate(answer, progress=False)
    results = {**report.cases[0].assertions, **report.cases[0].scores}
    return float(next(iter(results.values())).value)


class TestGraders:
    @pytest.mark.parametrize(
        ("grader", "text", "expected", "grade"),
        [
            (Exact(), " PARIS\n", "Paris", 1),
            (Exact(), "Paris!", "Paris", 0),
            (Includes(all=["Paris"], none=["Rome"]), "It is paris.", None, 1),
            (Includes(all=["Paris"], none=["Rome"]), "Paris or Rome", None, 0),
            (Includes(any=["a cat", "a dog"]), "I see a  dog", None, 1),
            (Includes(any=["a cat", "a dog"]), "I see a cow", None, 0),
            (MatchesSchema({"type": "object", "required": ["x"]}), '{"x": 1}', None, 1),
            (MatchesSchema({"type": "object", "required": ["x"]}), '{"y": 1}', None, 0),
            (MatchesSchema({"type": "object"}), "no JSON", None, 0),
            (Rule(r"^\d+$"), "a\n42", None, 1),
            (Rule(r"\d", must=False), "42", None, 0),
        ],
    )
    async def test_a_grader_gives(self, grader: Any, text: str, expected: Any, grade: float) -> None:
        assert await graded(grader, text, expected) == grade

    @pytest.mark.parametrize(("seconds", "usd", "grade"), [(1, 0.1, 1), (3, 0.1, 0), (1, 0.3, 0), (1, None, 1)])
    async def test_time_and_money_have_limits(self, seconds: float, usd: float | None, grade: float) -> None:
        assert await graded(Within(seconds=2, usd=0.2), "x", seconds=seconds, usd=usd) == grade


class TestJudge:
    async def run(self, monkeypatch: pytest.MonkeyPatch, said: str | None) -> tuple[CaseResult, list[str]]:
        """One case, judged by a model that says this."""
        asked: list[str] = []

        class Client:
            def __init__(self, target: Target) -> None:
                self.target = target

            async def ask(self, inputs: Any) -> Answer:
                if self.target.model == "judge":
                    asked.append(inputs)
                return Answer(text=said or "")

            async def close(self) -> None:
                return None

        def opened(target: Target) -> "Client":
            return Client(target)

        # The seam: what a target's name leads to.
        monkeypatch.setattr("evals.run.open_client", opened)
        case = Case[Any, Any, Any](name="only", inputs="Hello?", evaluators=(Judged(rubric="Polite."),))
        judge = Target.parse("local/judge") if said is not None else None
        run = await evaluate(Dataset[Any, Any, Any](name="d", cases=[case]), Target.parse(LOCAL), judge=judge)
        return run.cases[0], asked

    async def test_a_model_gives_the_score(self, monkeypatch: pytest.MonkeyPatch) -> None:
        case, asked = await self.run(monkeypatch, 'Well: {"reason": "Curt.", "score": 0.25}')

        assert (case.score, list(case.reasons.values())) == (0.25, ["Curt."])
        assert "Polite." in asked[0] and "Hello?" in asked[0]

    @pytest.mark.parametrize("said", [None, "I like it.", '{"score": "very"}'])
    async def test_without_a_score_the_case_counts_as_failed_and_says_why(
        self, monkeypatch: pytest.MonkeyPatch, said: str | None
    ) -> None:
        case, _ = await self.run(monkeypatch, said)

        assert case.score == 0
        assert any("judg" in reason for reason in case.reasons.values())


class TestTarget:
    def test_its_parts_are_read(self) -> None:
        target = Target.parse("http://h:1/v1/m?prompt=companion@2&key=KEY&usd=1,2&name=new")

        assert (target.base, target.model, target.key) == ("http://h:1/v1", "m", "KEY")
        assert (target.prompt, target.version, target.name) == ("companion", "2", "new")
        assert target.cost(1_000_000, 500_000) == 2.0

    @pytest.mark.parametrize("text", ["companion", "local/", "local/m?x=1", "http://h/v1/m?flag=titles:off"])
    def test_nonsense_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"target|flags"):
            Target.parse(text)

    async def test_the_local_app_is_asked_with_a_forced_flag(self) -> None:
        from evals.targets import open_client

        client: Client = open_client(Target.parse(f"{LOCAL}?flag=model.companion:companion-fast"))
        answer = await client.ask("count to 3")
        await client.close()

        assert (answer.text, answer.flags) == ("1 2 3", {"model.companion": "companion-fast"})

    async def test_the_local_app_is_asked_with_a_prompt(self) -> None:
        from evals.targets import open_client

        client = open_client(Target.parse(f"{LOCAL}?prompt=translate@1"))
        answer = await client.ask({"variables": {"language": "German", "text": "count to 2"}})
        await client.close()

        assert (answer.text, (answer.prompt or "").split(":")[0]) == ("1 2", "translate@1")

    async def test_a_server_is_asked_over_http(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from evals.targets import open_client

        environ = {"COMPANION_DATA": str(tmp_path), "COMPANION_API_KEYS": "k=ada", "COMPANION_OFFLINE_DELAY": "0"}
        companion = build_app(Settings.read(environ))
        monkeypatch.setenv("EVALS_KEY", "k")
        with override_app(companion):
            async with app_on_runtime() as app, serving(app) as url:
                client = open_client(Target.parse(f"{url}/v1/companion?key=EVALS_KEY"))
                answer = await client.ask("count to 3")
                await client.close()
        await companion.close()

        assert (answer.text, answer.status, answer.usd) == ("1 2 3", "completed", 0.0)
        assert answer.first_token is not None and 0 < answer.first_token <= answer.seconds
        assert answer.output_tokens > 0


class TestCompare:
    def test_the_same_values_give_the_same_interval(self) -> None:
        assert interval([0.0, 0.5, 1.0] * 5) == interval([0.0, 0.5, 1.0] * 5)

    def test_an_interval_holds_its_mean(self) -> None:
        found = interval([0.0, 0.0, 1.0, 1.0, 0.5, 0.7])

        assert found.low < found.mean < found.high

    @pytest.mark.parametrize(
        ("now", "before", "verdict"),
        [
            ([1.0] * 20, [0.5] * 20, "better"),
            ([0.2] * 20, [0.9] * 20, "worse"),
            ([0, 1] * 3, [1, 0] * 3, "no difference shown"),
        ],
    )
    def test_a_difference_is_judged_case_by_case(self, now: list[float], before: list[float], verdict: str) -> None:
        found = difference(dict(enumerate_cases(now)), dict(enumerate_cases(before)))

        assert found.verdict == verdict

    def test_cases_that_one_run_lacks_do_not_count(self) -> None:
        assert difference({"a": 1.0, "new": 0.0}, {"a": 0.0, "gone": 1.0}).mean == 1.0


def enumerate_cases(values: list[float]) -> list[tuple[str, float]]:
    return [(f"case {place}", value) for place, value in enumerate(values)]


def run_of(target: str, *scores: float, text: str = "x") -> Run:
    cases = [
        CaseResult(name=f"c{place}", inputs="?", answer=Answer(text=text, usd=0.01), grades={"g": score}, reasons={})
        for place, score in enumerate(scores)
    ]
    return Run(target=target, cases=cases)


class TestReport:
    def test_the_table_has_a_line_for_each_target(self) -> None:
        table = terminal_table([run_of("old", 1, 0), run_of("new", 1, 1)])

        assert [line.split()[:2] for line in table.splitlines()[1:3]] == [["old", "0.500"], ["new", "1.000"]]
        assert "0.02000" in table

    def test_who_did_not_answer_has_no_score_and_it_is_said_why(self) -> None:
        answer = Answer(text="no such prompt", status="failed")
        case = CaseResult(name="c", inputs="Hello?", answer=answer, grades={"Within": 1.0}, reasons={})
        run = Run(target="new", cases=[case])

        assert (run.mean, run.failed) == (0.0, 1)
        assert "no answer: no such prompt" in terminal_table([run])
        assert "Hello?" in html_page("d", [run])

    def test_the_page_is_whole_fetches_nothing_and_runs_nothing(self) -> None:
        page = html_page("d", [run_of("old", 1, 0, text="<script>alert(1)</script>"), run_of("new", 1, 1)])

        assert page.count("<svg") == 2
        assert "<script" not in page and "src=" not in page and "&lt;script&gt;" in page


class TestCommand:
    def test_every_dataset_can_be_read(self) -> None:
        from evals.run import DATASETS

        names = [path.stem for path in DATASETS.glob("*.yaml")]

        assert names and all(read_dataset(name).cases for name in names)

    def test_the_offline_model_passes_the_basics(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        page, saved = tmp_path / "r.html", tmp_path / "b.json"
        code = main(
            ["--dataset", "basics", "--target", LOCAL, "--least", "1", "--html", str(page), "--save", str(saved)]
        )

        assert (code, set(json.loads(saved.read_text())["scores"].values())) == (0, {1.0})
        assert LOCAL in capsys.readouterr().out and page.read_text().startswith("<!doctype html>")

    def test_a_run_that_is_worse_than_its_baseline_fails(self, tmp_path: Path) -> None:
        dataset, baseline = tmp_path / "d.yaml", tmp_path / "b.json"
        case: dict[str, Any] = {"inputs": "count to 2", "evaluators": [{"Exact": {}}], "expected_output": "no"}
        cases: list[dict[str, Any]] = [{"name": f"c{place}", **case} for place in range(5)]
        dataset.write_text(yaml.safe_dump({"name": "d", "cases": cases}))
        baseline.write_text(json.dumps({"scores": {f"c{place}": 1.0 for place in range(5)}}))

        assert main(["--dataset", str(dataset), "--target", LOCAL, "--baseline", str(baseline)]) == 1

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("companion", "BASE_URL/MODEL"),
            (f"{LOCAL}?flag=titles", "NAME:VALUE"),
            ("http://h/v1/m?usd=1", "IN,OUT"),
            ("http://h/v1/m?usd=a,b", "IN,OUT"),
        ],
    )
    def test_a_target_that_makes_no_sense_is_said(
        self, target: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["--dataset", "basics", "--target", target]) == 2
        assert said in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("baseline", "said"), [("[]", "no baseline"), ("{}", "no baseline"), ('{"scores": {"other": 1}}', "none of")]
    )
    def test_a_baseline_that_makes_no_sense_is_said(
        self, baseline: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "b.json"
        path.write_text(baseline)

        assert main(["--dataset", "basics", "--target", LOCAL, "--baseline", str(path)]) == 2
        assert said in capsys.readouterr().err

    def test_a_judged_dataset_needs_a_judge(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        dataset = tmp_path / "d.yaml"
        case = {"name": "c", "inputs": "hello", "evaluators": [{"Judged": {"rubric": "Polite."}}]}
        dataset.write_text(yaml.safe_dump({"name": "d", "cases": [case]}))

        assert main(["--dataset", str(dataset), "--target", LOCAL]) == 2
        assert "--judge" in capsys.readouterr().err


class TestCollect:
    @pytest.fixture
    async def cases(self, make_app: MakeApp) -> AsyncGenerator[list[dict[str, Any]]]:
        app = make_app(ScriptedModel([says("Rome."), says("Bern.")]))
        one, two = await ask(app, "Capital of France?", instructions="Be brief."), await ask(app, "Of Switzerland?")
        feedback = {"id": "feedback_1", "kind": "feedback", "group": "feedback", "sort": "1", "rating": "down"}
        feedback |= {"response": one.id, "comment": "It is Paris."}
        shadow = {"id": "shadow_1", "kind": "shadow", "group": "shadow", "sort": "1", "turn": two.id, "text": "Berne"}
        gone = {"id": "shadow_2", "kind": "shadow", "group": "shadow", "sort": "2", "turn": "resp_" + "0" * 32}
        await app.store.batch(STATE, CALLER.owner, [Create(feedback), Create(shadow), Create(gone)])
        yield await collect(app, CALLER.owner, ["feedback", "shadow"])

    async def test_what_was_said_before_goes_along(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([says("Hello, Ada."), says("Bob.")]))
        first = await ask(app, "I am Ada.")
        second = await ask(app, "Who am I?", previous_response_id=first.id)
        feedback = {"id": "feedback_1", "kind": "feedback", "group": "feedback", "sort": "1", "rating": "down"}
        await app.store.batch(STATE, CALLER.owner, [Create({**feedback, "response": second.id})])

        (case,) = await collect(app, CALLER.owner, ["feedback"])

        said = [(item["role"], item["content"]) for item in case["inputs"]["input"]]
        assert [role for role, _ in said] == ["user", "assistant", "user"]
        assert said[1][1] == "Hello, Ada."

    async def test_feedback_and_shadows_become_cases(self, cases: list[dict[str, Any]]) -> None:
        assert [case["name"] for case in cases] == ["feedback feedback_1", "shadow shadow_1"]
        assert cases[0]["inputs"]["instructions"] == "Be brief."
        assert cases[0]["inputs"]["input"][0]["content"][0]["text"] == "Capital of France?"

    async def test_the_judge_is_told_what_was_thought_of_the_answer(self, cases: list[dict[str, Any]]) -> None:
        rubrics = [case["evaluators"][0]["Judged"]["rubric"] for case in cases]

        assert "unhappy" in rubrics[0] and "Rome." in rubrics[0] and "It is Paris." in rubrics[0]
        assert "Bern." in rubrics[1]

    async def test_what_is_collected_can_be_run(self, cases: list[dict[str, Any]], tmp_path: Path) -> None:
        path = tmp_path / "collected.yaml"
        path.write_text(yaml.safe_dump({"name": "collected", "cases": cases}))
        dataset = Dataset[Any, Any, Any].from_file(path, custom_evaluator_types=GRADERS)
        run = await evaluate(dataset, Target.parse(LOCAL), judge=Target.parse(LOCAL))

        assert [case.answer.status for case in run.cases] == ["completed", "completed"]
