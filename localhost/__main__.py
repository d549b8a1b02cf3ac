"""`python -m localhost --port P --data DIR`: Companion on this machine."""

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402 - the clock starts first
import asyncio  # noqa: E402
import ipaddress  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import uvloop  # noqa: E402

from localhost.host import Host  # noqa: E402
from localhost.runtime import AppFailed  # noqa: E402
from localhost.server import Options, PortTaken, run  # noqa: E402
from shared.settings import DEFAULT_PORT, Settings, SettingsError  # noqa: E402

ROOT = Path(__file__).parent.parent


class Refused(Exception):
    """The options do not go together; the message says what to change."""


def main(arguments: list[str] | None = None) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        options = read_options(arguments)
        settings = settle(options)
        os.chdir(options.directory)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(options, lambda port, host: announce(options, settings, port, host)))
    except (Refused, SettingsError, PortTaken, AppFailed) as exc:
        print(exc, file=sys.stderr)
        return 2
    return 0


def read_options(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="localhost", description="Companion on this machine; no account, no key.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default: %(default)s; 0: any free one")
    parser.add_argument("--data", type=Path, help="folder of the state; several servers may share one (default: .data)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--drain", type=float, default=20.0, help="seconds that running answers get at the end")
    parser.add_argument("--app", type=Path, default=ROOT, help=argparse.SUPPRESS)  # another function app, for tests
    given = parser.parse_args(arguments)
    data: Path = given.data or Path(os.environ.get("COMPANION_DATA") or ".data")
    return Options(
        directory=given.app.resolve(), data=data.resolve(), hostname=given.host, port=given.port, drain=given.drain
    )


def settle(options: Options) -> Settings:
    """Put into the environment what the options say, and check that the whole is safe to serve.

    Raises:
        Refused: not on loopback, and no keys.
        SettingsError: a variable has an unusable value.
    """
    os.environ["COMPANION_DATA"] = str(options.data)
    settings = Settings.read()
    if settings.caller.api_keys:
        return settings
    if not is_loopback(options.hostname):
        raise Refused(
            f"Without keys Companion serves this machine only. Set COMPANION_API_KEYS=key=owner to listen on "
            f"{options.hostname}."
        )
    os.environ.setdefault("COMPANION_LOCAL_OWNER", "local")
    return Settings.read()


def is_loopback(hostname: str) -> bool:
    try:
        return ipaddress.ip_address(hostname).is_loopback
    except ValueError:
        return hostname == "localhost"


def announce(options: Options, settings: Settings, port: int, host: Host) -> None:
    """What it runs on, and where to click."""
    hostname = f"[{options.hostname}]" if ":" in options.hostname else options.hostname
    base = f"http://{hostname}:{port}"
    callers = f"{len(settings.caller.api_keys)} keys" if settings.caller.api_keys else "no key needed, loopback only"
    lines = [*describe_app(settings), ("callers", callers), ("data", str(options.data))]
    routes = {endpoint.template.text for endpoint in host.endpoints}
    lines += [("chat", f"{base}/")] if routes & {"", "/"} else []
    lines += [("API", f"{base}/v1"), ("health", f"{base}/readyz")]
    lines += [("traces", f"{base}/traces")] if routes & {"traces", "/traces"} and not settings.caller.api_keys else []
    print(f"\n  Companion is ready in {(time.perf_counter() - BEGAN) * 1000:.0f} ms\n")
    for name, value in lines:
        print(f"  {name:<8} {value}")
    print("\n  Ctrl+C stops it.", flush=True)


def describe_app(settings: Settings) -> list[tuple[str, str]]:
    edge = sys.modules.get("functions._edge")
    return [] if edge is None else edge.current_app().describe()


if __name__ == "__main__":
    sys.exit(main())
