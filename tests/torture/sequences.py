"""Anything that can happen, in sequences that nobody has thought of: the state machine of the tests, for longer."""

import hypothesis
from hypothesis.stateful import run_state_machine_as_test

from torture.figures import Figures


def of_events(seed, sequences):
    """So many sequences of feeding, killing, cutting, healing, stopping and swapping, a third for each kind of output."""
    from test_state_machine import KINDS, machine

    chosen = hypothesis.settings(
        max_examples=-(-sequences // len(KINDS)), stateful_step_count=25, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    for kind in KINDS:
        run_state_machine_as_test(hypothesis.seed(seed)(machine(kind)), settings=chosen)
    return Figures(sequences)
