"""Each part keeps mlinfer's contract, and has earned the guarantee that it claims."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from mlinfer_weblog.destination import Documents
from mlinfer_weblog.host import Surprise
from mlinfer_weblog.source import AccessLogs

from mlinfer.testing import check_destination, check_host, check_source
from mlinfer.testing.pytest import cases

USUAL = str(Path(__file__).parents[1] / "usual-paths.txt")
VISITS = [
    {
        "client": "192.0.2.7",
        "time": datetime(2024, 5, 1, 12, 0, second, tzinfo=UTC),
        "method": "GET",
        "path": f"/shop/item?id={second}",
        "status": 200,
        "bytes": 512 * second or None,
    }
    for second in range(7)
]


def logs(folder, records):
    """Put records where the source finds them, by other means than the source's own."""
    lines = [
        f'{row["client"]} - - [{row["time"]:%d/%b/%Y:%H:%M:%S +0000}] "{row["method"]} {row["path"]} HTTP/1.1" '
        f'{row["status"]} {row["bytes"] or "-"} "-" "Mozilla/5.0"\n'
        for row in records.to_pylist()
    ]
    (folder / "1.log").write_text("".join(lines[:4]))
    (folder / "2.log").write_text("".join(lines[4:]))
    return AccessLogs(str(folder))


def documents(destination):
    """Read the records with the database's own client."""
    if not Path(destination.path).exists():
        return []
    with closing(sqlite3.connect(destination.path)) as database:
        rows = database.execute("SELECT document FROM documents WHERE output = 'main'").fetchall()
        return [json.loads(document) for (document,) in rows]


@cases(check_source(logs, VISITS))
def test_access_logs(check):
    check()


@cases(check_host(lambda: Surprise(USUAL), {"path": ["/shop", "/wp-login.php", "/../etc/passwd"]}))
def test_surprise(check):
    check()


@cases(check_destination(lambda folder: Documents(str(folder / "visits.db")), documents))
def test_documents(check):
    check()
