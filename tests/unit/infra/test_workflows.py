"""The pipelines: valid by actionlint, least privilege, everything foreign pinned, every command they call exists."""

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def named(path: Path) -> str:
    return path.name


def text(name: str) -> str:
    return (ROOT / ".github" / "workflows" / name).read_text()


def lint(*paths: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        ["node", "tools/lint_workflows.mjs", *(str(path) for path in paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_actionlint_finds_nothing() -> None:
    assert lint(*WORKFLOWS) == []


def test_actionlint_is_at_work(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yml"
    broken.write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    needs: b\n    steps:\n      - run: 'true'\n"
    )

    assert [finding["kind"] for finding in lint(broken)] == ["job-needs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_every_action_is_pinned_by_digest_and_says_its_version(path: Path) -> None:
    used = [line.split("uses:")[1].strip() for line in path.read_text().splitlines() if "uses:" in line]
    foreign = [use for use in used if not use.startswith("./")]

    assert [use for use in foreign if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_every_image_is_pinned_by_digest(path: Path) -> None:
    images = re.findall(r"^ +image: (\S+)", path.read_text(), re.M)

    assert [image for image in images if not re.search(r"@sha256:[0-9a-f]{64}$", image)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_a_workflow_may_read_the_source_and_only_a_job_that_needs_more_gets_more(path: Path) -> None:
    source = path.read_text()
    top = re.search(r"^permissions:\n((?:  .+\n)+)", source, re.M)
    written = set(re.findall(r"^ +([a-z-]+): write", source, re.M))

    assert top
    assert top[1] == "  contents: read\n"
    assert written <= {"id-token"}
    assert "pull_request_target" not in source


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_a_checkout_leaves_no_token_behind(path: Path) -> None:
    source = path.read_text()

    assert source.count("actions/checkout@") == source.count("persist-credentials: false")


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_every_job_has_a_time_limit_and_a_named_machine(path: Path) -> None:
    source = path.read_text()
    machines = re.findall(r"runs-on: (\S+)", source)

    assert set(machines) <= {"ubuntu-24.04"}
    assert source.count("timeout-minutes:") == len(machines)


def test_nothing_signs_in_with_a_stored_password() -> None:
    secrets = {name for path in WORKFLOWS for name in re.findall(r"secrets\.(\w+)", path.read_text())}

    assert secrets == {"COMPANION_OWNER_KEY"}
    for name in ("release.yml", "infra.yml"):
        assert "creds:" not in text(name)
        assert "id-token: write" in text(name)


def test_every_make_target_called_exists() -> None:
    called = {name for path in WORKFLOWS for name in re.findall(r"\bmake ([a-z]+)$", path.read_text(), re.M)}
    matrix = re.search(r"target: \[(.+)\]", text("nightly.yml"))
    assert matrix
    called |= set(matrix[1].split(", "))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))

    assert called <= targets
    assert "package" in called


def test_the_pull_request_runs_what_the_readme_says() -> None:
    """`.ci/run` is `make test` with what a bare machine lacks."""
    assert "run: .ci/run" in text("ci.yml")
    assert "make --no-print-directory test" in (ROOT / ".ci" / "run").read_text()


def test_a_release_that_does_not_answer_is_rolled_back() -> None:
    steps = re.findall(r"^      - name: (.+)$", text("release.yml"), re.M)

    assert steps[-4:] == ["Deploy", "Smoke test", "Remember it as good", "Roll back to the last good package"]
    rollback = text("release.yml").partition("Roll back")[2]
    assert "failure()" in rollback
    assert rollback.index("tools/deploy.sh last-good") < rollback.index("tools.smoke")


def test_azd_deploys_the_built_package_and_runs_no_hook() -> None:
    azure = (ROOT / "azure.yaml").read_text()

    assert "project: dist/app" in azure
    assert "remoteBuild: false" in azure
    assert "hooks" not in azure
