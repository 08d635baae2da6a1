"""Hardware as Neptune shows it: pairs of columns, time in milliseconds from the experiment's start and the reading."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from headrace_proto.store.parts import times_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa

_FIXED: Final = {"system/memory": "ram", "system/cpu": "cpu"}
_GPU: Final = re.compile(r"system/gpu(\d+)/(utilization|memory)")
_GPU_SHORT: Final = {"utilization": "util", "memory": "mem"}


def shown(channels: Iterable[str]) -> dict[str, str]:
    """Channel -> Neptune's name for it, in Neptune's order: ram, cpu, then each GPU's util and mem.

    >>> shown(["system/gpu1/memory", "system/cpu", "loss", "system/gpu0/utilization", "system/net_sent"])
    {'system/cpu': 'cpu', 'system/gpu0/utilization': 'gpu_util_0', 'system/gpu1/memory': 'gpu_mem_1'}
    """
    there = set(channels)
    found = {channel: short for channel, short in _FIXED.items() if channel in there}
    gpus = sorted(
        (int(match[1]), -ord(match[2][0]), channel, f"gpu_{_GPU_SHORT[match[2]]}_{match[1]}")
        for channel in there
        if (match := _GPU.fullmatch(channel))
    )
    return {**found, **{channel: short for *_, channel, short in gpus}}


def utilization(tables: Mapping[str, pa.Table], started: datetime | None) -> pd.DataFrame:
    """`tables` (channel -> points) as `x_ram`, `y_ram`, `x_cpu`, `y_cpu`, `x_gpu_util_0`, ...; padded with NaN; zeros are kept."""
    import pandas as pd

    columns = {}
    for channel, short in shown(tables).items():
        times = times_us(tables[channel])
        begun = started.timestamp() * 1000 if started else (times[0] / 1000 if len(times) else 0.0)
        columns[f"x_{short}"] = pd.Series((times / 1000 - begun).round())
        columns[f"y_{short}"] = pd.Series(tables[channel]["value"].to_numpy())
    return pd.DataFrame(columns)
