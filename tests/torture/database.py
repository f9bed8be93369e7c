"""PostgreSQL goes away: a connection is cut around a commit whose outcome nobody knows, or the whole server dies."""

import random
import time

from proxy import Proxy, Trap
from torture.figures import Figures, check
from torture.harness import PATIENCE, tortured

UNHURRIED = 0.02
"""Seconds between two feeds: a backlog that grows with every outage would make this a test of large batches."""
CUTS = ["unsent", "answered", "late"]


def cut_commits(kind, seed, cuts):
    """So many commits of one run lose their connection before, while or after the server hears of them."""
    with tortured(kind, seed) as torture, Proxy(torture.server.port) as proxy:
        url = (torture.folder / "url").read_text()
        address = torture.folder / "child-url"  # the oracle goes straight to the server
        address.write_text(url.replace(f":{torture.server.port}/", f":{proxy.port}/"))
        child = torture.start()
        child.stdout.readline()
        for number, then in enumerate(_shuffled(cuts, seed)):
            before = torture.stored()
            proxy.sprung, proxy.trap = False, Trap(b"COMMIT\0", then)  # not the COMMITTED of BEGIN
            _feed_until(torture, child, lambda: proxy.sprung)
            if number % 4:  # else the next one hits what reopens the output, which is a commit of its own
                _feed_until(torture, child, lambda before=before: torture.stored() > before)
        torture.end_with_input(child)
        address.unlink()
        verdict = torture.finish()
        return Figures(cuts, verdict)


def server_killed(kind, seed, kills):
    """So many times the server is killed and comes back; the pipeline goes on by itself."""
    dice = random.Random(seed)
    with tortured(kind, seed) as torture:
        child = torture.start()
        child.stdout.readline()
        for _ in range(kills):
            before = torture.stored()
            _feed_until(torture, child, lambda before=before: torture.stored() > before)
            time.sleep(dice.random() * 0.1)
            torture.server.kill()
            time.sleep(dice.random() * 0.2)
            torture.server.start()
        torture.end_with_input(child)
        return Figures(kills, torture.finish())


def _shuffled(cuts, seed):
    order = (CUTS * cuts)[:cuts]
    random.Random(seed).shuffle(order)
    return order


def _feed_until(torture, child, done):
    latest = time.monotonic() + PATIENCE
    while not done():
        check(child.poll() is None, f"the run ended: {child.stderr.read() if child.poll() else ''}", torture)
        check(time.monotonic() < latest, "the run stands still", torture)
        torture.feed_a_little()
        time.sleep(UNHURRIED)
