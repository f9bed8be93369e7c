"""Checks for parts: whoever writes a source, a host or a destination proves with them that it keeps the contract.

Each function gives pairs of a name and a check. A check is called without arguments. It returns None when the part
passes, and raises AssertionError when it does not: with what is wanted, what was found and what to do. A check that does
not concern the part returns a text that says so (`skipped: ...`). The last one, `guarantee`, returns what the part has
earned, and refuses a part that claims more.

    from mlinfer.testing import check_source

    for name, check in check_source(make, RECORDS):
        print(name, check() or "passed")

With pytest, `mlinfer.testing.pytest.cases` makes a test of each check.
"""

from mlinfer.testing._destinations import check_destination
from mlinfer.testing._hosts import check_host
from mlinfer.testing._kit import Check
from mlinfer.testing._sources import check_source

__all__ = ["Check", "check_destination", "check_host", "check_source"]
