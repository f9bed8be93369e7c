"""More requests than the model can do, at times that do not wait for answers: who is refused is told at once, who is admitted is
answered in time, the model is kept busy, and soon after it is over nobody notices that it was.

The model takes SERVICE seconds for a batch of at most SLOTS records, so it can do SLOTS / SERVICE records a second.
"""

import asyncio
import time

from torture import asking
from torture.figures import Figures
from torture.oracle import Verdict

SERVICE, SLOTS = 0.1, 16
CAPACITY = SLOTS / SERVICE
QUEUE_SECONDS = 4.0
"""The server's patience with what waits because of others; see `Patience`."""
RECOVERY = 5.0
AFTERWARDS = 40


def at(factor):
    """The lane with that many times as many requests as can be done."""

    def overload(seed, requests):
        del seed  # the times are even, and the model sleeps: there is nothing to draw
        with asking.served(SERVICE, records=SLOTS) as (child, port, _):
            found, after = asyncio.run(_offered(port, factor * CAPACITY, requests))
            assert child.poll() is None, "the server ended"
        answered = sorted(seconds for status, seconds in found if status == 200)
        refused = sorted(seconds for status, seconds in found if status == 503)
        strange = len(found) - len(answered) - len(refused)
        p99, queue = answered[int(0.99 * len(answered))], QUEUE_SECONDS * CAPACITY
        bound = 1.5 * (queue / SLOTS + 1) * SERVICE + 0.02
        possible = CAPACITY * (requests / (factor * CAPACITY) + p99)
        goodput = len(answered) / possible
        late = max(seconds for _, seconds in after)
        note = (
            f"{factor:g} times {CAPACITY:g} requests/s: {len(answered):,} answered, p99 {p99:.2f} s (at most {bound:.2f}), "
            f"goodput {goodput:.0%}; {len(refused):,} refused, p99 {1000 * refused[int(0.99 * len(refused))]:.0f} ms; "
            f"{RECOVERY:g} s later at most {1000 * late:.0f} ms"
        )
        assert p99 <= bound, note
        assert goodput >= 0.9, note
        assert all(status == 200 for status, _ in after), note
        assert late <= 4 * SERVICE, note
        return Figures(requests, Verdict(wrong=strange), notes=[note])

    return overload


async def _offered(port, rate, requests):
    """The status of each request and its seconds, from when it was due; the same for some a while after the last one."""
    idle, begun = [], time.perf_counter()

    async def one(number, due):
        streams = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        status, _ = await asking.ask(streams, {"who": str(number), "x": 1.0})
        if not streams[1].is_closing():
            idle.append(streams)
        return status, time.perf_counter() - due

    async def series(count, rate, start):
        asked = []
        for number in range(count):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asked.append(asyncio.create_task(one(number, due)))
        return asked

    asked = await series(requests, rate, begun)
    ended = time.perf_counter()
    await asyncio.sleep(RECOVERY)
    found = [task.result() for task in asked]  # whoever was admitted has been answered by now
    after = await asyncio.gather(*await series(AFTERWARDS, CAPACITY / 4, ended + RECOVERY))
    for _, writer in idle:
        writer.close()
    return found, after
