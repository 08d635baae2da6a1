"""How many examples a test against a model tries: few and always the same in `make test`, many and new ones in a soak."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

SOAK_VARIABLE = "HYPOTHESIS_SOAK"
"""A factor: HYPOTHESIS_SOAK=50 tries 50 times as many examples, other ones at each run."""


def examples(quick: int, steps: int = 50) -> settings:
    """Settings for `quick` examples (of up to `steps` steps, where the test is a state machine), times the factor in a soak."""
    factor = int(os.environ.get(SOAK_VARIABLE) or 0)
    return settings(
        max_examples=quick * max(factor, 1),
        stateful_step_count=steps,
        derandomize=not factor,
        deadline=None,
        phases=[phase for phase in Phase if phase is not Phase.explain],  # traces every line: minutes
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
