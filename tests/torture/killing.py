"""Runs that are killed: at every named place, at moments without a name, and while they recover."""

from torture.figures import Figures, check
from torture.harness import tortured
from torture.oracle import versions

IN_RECOVERY = "host.load.before host.load.after source.open source.read.before".split()
IN_RECOVERY_OF_TEXT = "progress.write.tmp progress.fsync progress.rename".split()

ANEW = {
    "restarted-parquet": (
        "dest.anew",
        "dest.begin",
        "dest.publish",
        "dest.write.partial",
        "dest.commit.after",
    ),
    "restarted-jsonl": (
        "dest.anew",
        "dest.begin",
        "progress.rename",
        "dest.write.partial",
        "dest.commit.after",
    ),
}
ANEW_HITS = {"dest.begin": 12, "dest.publish": 12, "progress.rename": 12, "dest.commit.after": 3}
"""Behind the first new answers: rejects and every lane come to these places, too. Else the first hit."""


def at_named_places(kind, seed, kills):
    """So many kills, at every place in turn."""
    with tortured(kind, seed) as torture:
        torture.kill(kills)
        return _ended(torture)


def at_any_time(kind, seed, kills):
    """So many kills, at moments that nobody has named; some before the first answers, most behind them, on any machine."""
    with tortured(kind, seed) as torture:
        longest = 4 * max(torture.seconds_to_an_answer() for _ in range(3))
        while torture.kills.total() < kills:
            torture.kill_at_any_time(longest)
        return _ended(torture)


def in_recovery(kind, seed, kills):
    """A run dies in a commit, and so many in a row that come after it die before they have delivered anything."""
    with tortured(kind, seed) as torture:
        torture.feed(200)
        torture.kill_at("dest.write.partial", 3)
        places = IN_RECOVERY + (IN_RECOVERY_OF_TEXT if kind in {"jsonl", "csv"} else [])
        files = []
        for n in range(kills):
            check(torture.kill_at(places[n % len(places)]), "it came through", torture)
            files.append(len(leftovers(torture)))
        check(max(files) <= files[0] + 2, f"leftovers grow: {files}", torture)
        before = torture.stored()
        figures = _ended(torture)
        check(torture.stored() > before, "no progress was made", torture)
        check(not leftovers(torture), f"left behind: {leftovers(torture)}", torture)
        figures.done, figures.between = kills, None
        return figures


def begun_anew(kind, seed, kills):
    """So many runs with a newer model, which begin the output anew, die at it; never are answers of two models there."""
    with tortured(kind, seed) as torture:
        torture.feed(60)
        torture.clean_run()
        places = ANEW[kind]
        for n in range(kills):
            (torture.folder / "version").write_text(str(n + 2))
            place = places[n % len(places)]
            check(torture.kill_at(place, ANEW_HITS.get(place, 1)), f"no run came to {place}", torture)
            found = versions(torture.folder, kind)
            check(len(found) <= 1, f"killed at {place}: answers of the models {found}", torture)
        figures = _ended(torture)
        figures.between = None  # of a run that begins anew less may be there than before it
        return figures


def leftovers(torture):
    """Files that a run makes and takes away again."""
    names = [path.name for path in torture.folder.rglob("*")]
    return [name for name in names if name.endswith((".tmp", "-journal"))]


def _ended(torture):
    verdict = torture.finish()
    return Figures(torture.kills.total(), verdict, torture.kills, torture.between)
