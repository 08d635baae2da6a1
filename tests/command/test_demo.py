"""`make demo`, with fewer epochs: the main job on real scans, through every part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headrace.reading import StoredProject

DEMO = Path(__file__).parent.parent.parent / "deploy" / "demo" / "demo.py"


def test_demo_stores_and_shows_what_it_trained(tmp_path: Path) -> None:
    """Three networks are trained and stored with metrics, texts, pictures, output, hardware, source and model, and shown."""
    done = subprocess.run(
        [sys.executable, str(DEMO), "--epochs", "10"], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    made = StoredProject(str(tmp_path / ".demo" / "store"), "vision/digits").get_experiments(state="succeeded")
    assert [one.id for one in made] == ["DIG-1", "DIG-2", "DIG-3"]
    for one in made:
        points = {channel.name: channel.points for channel in one.channels}
        assert points["train/loss"] == 440
        assert points["test/accuracy"] == 10
        assert {"notes", "stdout", "confusion", "misread", "system/cpu"} <= points.keys()
        assert one.artifacts["model.npz"].state == "stored"
        assert "train_digits.py" in one.source_files
        assert one.metrics["test/accuracy"] > 0.8
        assert one.read_image("confusion").startswith(b"\x89PNG")
        assert one.id in done.stdout
    for words in ("test/loss", "experiment.json", "model.npz", "look further"):
        assert words in done.stdout.lower()
