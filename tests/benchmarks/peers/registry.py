"""The peers by name. Their modules are imported when they are asked for: each costs what it costs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.benchmarks.peers.peer import Peer

PEERS: Final = {
    "headrace": "product:Headrace",
    "headrace-stored": "product:HeadraceStored",
    "json-lines": "json_lines:JsonLines",
    "trackio": "trackio_local:Trackio",
    "tensorboardX": "tensorboard_x:TensorboardX",
    "aim": "aim_local:Aim",
    "wandb": "wandb_offline:Wandb",
    "neptune-scale": "neptune_offline:NeptuneScale",
    "mlflow": "mlflow_sqlite:Mlflow",
    "mlflow-async": "mlflow_sqlite:MlflowAsync",
}
"""In the order of the tables."""


def peer_class(name: str) -> type[Peer]:
    """The adapter of this name. Raises `KeyError` for another one."""
    module, _, attribute = PEERS[name].partition(":")
    found: type[Peer] = getattr(import_module(f"tests.benchmarks.peers.adapters.{module}"), attribute)
    return found
