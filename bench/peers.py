"""Servers that Companion is measured beside: each in an environment of its own, installed on demand.

One that cannot be had is left out, and the notes say why.
"""

import asyncio
import contextlib
import subprocess
import sys
from dataclasses import dataclass, replace

from bench.load import Target
from bench.measure import Subject
from bench.servers import ROOT, DidNotStart, free_port, serving

WORK = ROOT / ".bench"
_LITELLM = """
model_list:
  - model_name: "*"
    litellm_params: {model: "openai/*", api_base: "<upstream>", api_key: bench}
general_settings: {dangerously_permit_weak_or_unset_master_key: true}
"""
# What it needs to serve stored responses; chat completions are not stored a second time.
_OGX = """
version: 2
distro_name: bench
providers:
  inference:
    - provider_id: openai
      provider_type: remote::openai
      config: {base_url: "<upstream>", api_key: bench}
  responses:
    - provider_id: builtin
      provider_type: inline::builtin
      config: {persistence: {responses: {table_name: responses, backend: sql_default}}}
  files:
    - provider_id: files
      provider_type: inline::localfs
      config: {storage_dir: "${env.BENCH_DATA}", metadata_store: {table_name: files, backend: sql_default}}
storage:
  backends:
    kv_default: {type: kv_sqlite, db_path: "${env.BENCH_DATA}/keys.db"}
    sql_default: {type: sql_sqlite, db_path: "${env.BENCH_DATA}/ogx.db"}
  stores:
    inference: {table_name: inference, backend: sql_default, enabled: false}
server: {host: 127.0.0.1}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """How to get a server, start it and ask it."""

    package: str
    config: str
    command: tuple[str, ...]
    """From its environment's bin; `{config}` and `{port}` are filled in."""
    environ: dict[str, str]
    target: Target
    """On no port yet."""


PEERS = (
    Peer(
        package="litellm[proxy]",
        config=_LITELLM,
        command=("litellm", "--config", "{config}", "--port", "{port}", "--num_workers", "1"),
        environ={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            # It ends a stream with an error once this many chunks (its default: 100) say the same, as all of ours do.
            # It still looks at every chunk.
            "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",
        },
        target=Target(
            name="LiteLLM",
            port=0,
            path="/v1/chat/completions",
            body={"messages": [{"role": "user", "content": "Hello"}]},
        ),
    ),
    Peer(
        package="ogx==1.5.0",
        config=_OGX,
        command=("ogx", "run", "{config}", "--insecure", "--port", "{port}"),
        environ={"OGX_LOGGING": "all=error", "OGX_LOG_FORMAT": "json"},
        target=Target(
            name="ogx",
            port=0,
            path="/v1/responses",
            body={"input": "Hello", "store": True},
            prefix="openai/",
            token=b'"delta":"token',
            each=b'"delta":"',
            end=b'"type":"response.completed"',
        ),
    ),
)


async def start(peer: Peer, stack: contextlib.AsyncExitStack, upstream: str, notes: list[str]) -> Subject | None:
    """None, and a note, when it could not be installed or did not start."""
    name = peer.target.name
    program = WORK / name.lower() / "bin" / peer.command[0]
    failure = "" if program.exists() else await asyncio.to_thread(_install, peer)
    if failure:
        notes.append(f"{name} was not measured: it could not be installed: {failure}")
        return None
    config, port = WORK / f"{name.lower()}.yaml", free_port()
    config.write_text(peer.config.replace("<upstream>", upstream))
    command = [str(program), *(part.replace("{config}", str(config)) for part in peer.command[1:])]
    try:
        server = await stack.enter_async_context(serving(name, command, env=peer.environ, port=port, patience=120))
    except DidNotStart as failure:
        notes.append(f"{name} was not measured: {failure}")
        return None
    return Subject(target=replace(peer.target, port=port), server=server, most=64, answers=64)


def _install(peer: Peer) -> str:
    """Empty when it went well; else why not."""
    home = WORK / peer.target.name.lower()
    try:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True, text=True)
        install = [str(home / "bin/pip"), "install", "--quiet", peer.package]
        subprocess.run(install, check=True, capture_output=True, text=True, timeout=600)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failure:
        said = str(failure.stderr or failure).strip().splitlines()
        return said[-1] if said else "no reason given"
    return ""
