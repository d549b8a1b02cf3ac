"""A flag wakes all who wait for it, and stays set until it is cleared."""

import asyncio

from shared.flag import Flag


async def _waiting(flag: Flag) -> asyncio.Task[None]:
    task = asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    return task


async def test_all_who_wait_are_woken_though_one_was_cancelled() -> None:
    flag = Flag()
    tasks = [await _waiting(flag) for _ in range(3)]
    tasks[0].cancel()

    flag.set()

    async with asyncio.timeout(1):
        await asyncio.gather(*tasks[1:])


async def test_who_comes_late_waits_only_once_it_is_cleared() -> None:
    flag = Flag()
    flag.set()
    async with asyncio.timeout(1):
        await flag.wait()

    flag.clear()

    task = await _waiting(flag)
    assert not task.done()
    task.cancel()
