"""What MLflow keeps of a training, in its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tracking.offline import LOSSES, NAME, tracked

pytest.importorskip("mlflow", reason="mlflow is not installed")


@pytest.mark.filterwarnings("ignore")  # of MLflow's about its files
def test_a_killed_training_goes_on_in_its_run_and_another_begins_its_own(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked(copy, "mlflow", killed=True)
    tracked(copy, "mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient((copy / "data/log/tracking/mlflow").as_uri())
    experiment = client.get_experiment_by_name("project")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == (NAME, "FINISHED")
    assert (run.data.tags["group"], run.data.tags["stage"]) == ("lora", "pretrain")
    assert run.data.params["pretrain.lr"] == "0.001"
    assert len(run.data.params["key"]) == 64
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == LOSSES

    tracked(copy, "mlflow")
    assert len(client.search_runs([experiment.experiment_id])) == 2
