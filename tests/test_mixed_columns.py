"""A column of several types that nobody asks for is in nobody's way; whoever asks for it is told."""

import numpy as np
import pandas as pd
import pytest

from mlinfer import ConfigError, InferencePipeline, SchemaError
from mlinfer.destinations import MemoryDestination
from mlinfer.hosts import FunctionHost
from mlinfer.sources import MemorySource

HOST = FunctionHost(
    lambda n: n / 2, inputs={"n": "double"}, outputs={"half": "double"}, takes="numpy", version="1"
)
COLUMNS = {"n": [1.0, 4.0], "id": ["a", "b"], "mix": [1, "a"]}
FORMS = {
    "dict": COLUMNS,
    "pandas": pd.DataFrame(COLUMNS),
    "dict of arrays": {name: np.array(values, object) for name, values in COLUMNS.items()},
    "dict of series": {name: pd.Series(values) for name, values in COLUMNS.items()},
    "rows": [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)],
}


def pipeline(data, **more):
    return InferencePipeline(MemorySource(data), HOST, MemoryDestination(), name="p", **more)


@pytest.mark.parametrize("form", FORMS)
def test_records_in_hand_may_have_it(form):
    with pipeline({"n": [1.0]}, keep={"id": "string"}) as found:
        assert found.infer(FORMS[form]).to_pydict() == {"id": ["a", "b"], "half": [0.5, 2.0]}
        assert found.infer(FORMS[form], on_reject="null")["half"].to_pylist() == [0.5, 2.0]


@pytest.mark.parametrize("form", FORMS)
def test_a_source_in_memory_may_have_it(form):
    found = pipeline(FORMS[form], keep=["id"])
    assert found.run().delivered == 2
    assert found.job.destination.table().to_pydict() == {"id": ["a", "b"], "half": [0.5, 2.0]}
    assert found.preview(1)["half"].to_pylist() == [0.5]


@pytest.mark.parametrize("form", FORMS)
def test_who_asks_for_it_is_told(form):
    with pytest.raises(ConfigError, match="mix"):
        pipeline(FORMS[form], keep=["mix"]).run()
    with pytest.raises(ConfigError, match="of one type"):
        pipeline(FORMS[form], keep={"mix": "string"}).run()
    if form != "rows":
        with (
            pipeline({"n": [1.0]}, keep={"mix": "string"}) as found,
            pytest.raises(ConfigError, match="of one type"),
        ):
            found.infer(FORMS[form])


def test_who_misses_a_column_is_still_told_what_is_there():
    with pipeline({"n": [1.0]}) as found, pytest.raises(SchemaError, match="columns there are: m, id"):
        found.infer({"m": [1.0], "id": ["a"]})


def test_a_table_of_nothing_but_mixtures_is_refused():
    with pytest.raises(ConfigError, match="of one type"):
        MemorySource({"mix": [1, "a"]}).schema()
