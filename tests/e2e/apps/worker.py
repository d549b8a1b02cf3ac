"""The edges app with its extension's own web server on a port, as the cloud runs it; prints where it listens.

The part of the host that sends invocations is played here: every request that arrives is claimed by `read_headers`,
except those whose id is in capitals.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

from azure_functions_runtime import http_v2  # pyright: ignore[reportMissingTypeStubs]

from localhost import protos
from localhost.runtime import Runtime


async def main() -> None:
    guard = sys.modules.get("functions._guard")
    assert guard is None, "patched before the app is loaded"
    runtime = await Runtime.load(Path(__file__).parent / "edges", on_port=True)
    sys.modules["functions._guard"].UNCLAIMED = 0.5  # type: ignore[attr-defined]
    function = next(each for each in runtime.functions if each.name == "read_headers")
    print(runtime.http_uri, flush=True)  # noqa: T201
    entries = cast(dict[str, Any], http_v2.http_coordinator._context_references)  # pyright: ignore
    claimed: set[str] = set()
    async with asyncio.TaskGroup() as group:
        while True:
            for id_ in [id_ for id_ in entries if id_ not in claimed and id_ == id_.lower()]:
                claimed.add(id_)
                data = protos.TypedData(http=protos.RpcHttp(params={}))
                group.create_task(runtime.invoke(function, data, invocation_id=id_))
            await asyncio.sleep(0.002)


asyncio.run(main())
