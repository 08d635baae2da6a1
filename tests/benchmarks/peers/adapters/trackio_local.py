"""trackio, local: a thread of the process writes to SQLite every half second."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tests.benchmarks.peers.peer import CHANNEL, Log, Peer, Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from tests.benchmarks.peers.peer import Trial

_SEARCH = f"""
SELECT c.run_name, json_extract(c.config, '$.batch') AS batch, json_extract(m.metrics, '$.{CHANNEL}') AS {CHANNEL}
FROM configs c JOIN metrics m ON m.run_id = c.run_id
WHERE json_extract(c.config, '$.batch') = 32 AND json_extract(m.metrics, '$.{CHANNEL}') < 0.5
AND m.step = (SELECT max(step) FROM metrics WHERE run_id = c.run_id)
"""


class Trackio(Peer):
    """`trackio.init`, `trackio.log`, `trackio.finish`."""

    name: ClassVar[str] = "trackio"
    distribution: ClassVar[str] = "trackio"
    environment: ClassVar[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    way: ClassVar[str] = (
        "`trackio.init(project, name, config)`, `trackio.log({...}, step)`, `trackio.finish()`; local, so a thread "
        "writes to SQLite. Read by what `trackio get metric` calls, searched by the SQL of `trackio query`."
    )
    beyond: ClassVar[str] = (
        "a dashboard in the browser, free hosting on Hugging Face Spaces, wandb's names as a drop-in, alerts, "
        "artifacts with lineage, SQL over all that was logged."
    )

    def begin(self) -> Log:
        import trackio

        trackio.init(project="bench", name="bench", config={"batch": 32})
        log = trackio.log
        return Log(
            lambda name, step, value: log({name: value}, step=step), lambda values, step: log(dict(values), step=step)
        )

    def end(self) -> None:
        import trackio

        trackio.finish()

    def read(self) -> Series:
        from trackio.sqlite_storage import SQLiteStorage

        rows = SQLiteStorage.get_metric_values("bench", "bench", CHANNEL)
        return Series([row["step"] for row in rows], [row["value"] for row in rows])

    def populate(self, trials: Sequence[Trial]) -> None:
        import trackio

        for trial in trials:
            trackio.init(project="many", name=trial.name, config={"batch": trial.batch})
            trackio.log({CHANNEL: trial.loss})
            trackio.finish()

    def finder(self) -> Callable[[], pd.DataFrame]:
        import pandas as pd
        from trackio.sqlite_storage import SQLiteStorage

        return lambda: pd.DataFrame(SQLiteStorage.query_project("many", _SEARCH)["rows"])
