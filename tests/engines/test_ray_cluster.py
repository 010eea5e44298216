"""What only the engine ray does."""

from pathlib import Path

import pytest
import shard_work

from soo_marl.cli import main
from soo_marl.engines import Compute, run_shards

pytest.importorskip("ray")

NOBODY = "127.0.0.1:9"


def test_a_cluster_that_nobody_runs_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = ["--output", str(tmp_path / "study"), "--seeds", "0", "1"]
    assert main(["train", *study, "--engine", "ray", "--address", NOBODY]) == 2
    stderr = capsys.readouterr().err
    assert stderr == f"soo-marl: cannot use the Ray cluster {NOBODY}: [Errno 111] Connection refused\n"


def test_a_cluster_without_gpus(ray: Compute) -> None:
    with pytest.raises(ValueError, match=r"^no node of the Ray cluster has a GPU$"):
        run_shards(shard_work.square, [(1, 0.0)], Compute(engine="ray", address="auto", device="cuda"))
