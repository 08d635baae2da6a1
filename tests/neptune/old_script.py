# mypy: ignore-errors
# A training script as people wrote them for neptune-client 0.4: two models on handwritten digits, everything logged that can be,
# read back, compared, resumed, cleaned up. The tests run it as it stands, by `python -m headrace.neptune`, and with its imports
# changed to `headrace.neptune`; what it checks of itself it asserts, and what it learned of the store it writes to report.json.
import io
import json
import logging
import os
import sys
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import neptune
from neptune.exceptions import ExperimentValidationError, FileNotFound, InvalidChannelValue, NeptuneException
from neptune.experiments import Experiment
from neptune.git_info import GitInfo
from neptune.utils import get_git_info

PARAMS = {"lr": 0.5, "epochs": 12, "batch_size": 128, "shuffle": True, "optimizer": "sgd", "layers": (64, 10)}
logger = logging.getLogger("digits")
logger.setLevel(logging.INFO)
report = {}


class Model:
    """Softmax regression, by hand."""

    def __init__(self, features, classes):
        self.weights = np.zeros((features, classes))

    def scores(self, x):
        z = x @ self.weights
        z = np.exp(z - z.max(axis=1, keepdims=True))
        return z / z.sum(axis=1, keepdims=True)

    def step(self, x, y, lr):
        p = self.scores(x)
        loss = -np.log(p[np.arange(len(y)), y] + 1e-12).mean()
        p[np.arange(len(y)), y] -= 1
        self.weights -= lr * x.T @ p / len(y)
        return float(loss)

    def accuracy(self, x, y):
        return float((self.scores(x).argmax(axis=1) == y).mean())


digits = load_digits()
images, labels = digits.images, digits.target
data = digits.data / 16.0
train, test = slice(0, 1400), slice(1400, None)

# ---------------------------------------------------------------------------------------------------- the project
neptune.init(api_token="ANONYMOUS", project_qualified_name=os.environ["OLD_PROJECT"])
project = neptune.set_project(os.environ["OLD_PROJECT"])
print("project", project, project.full_id)
assert project == neptune.project

notebook = project.create_notebook()
assert project.get_notebook(notebook.id).id == notebook.id

# ---------------------------------------------------------------------------------------------------- first model
os.makedirs("plots", exist_ok=True)
exp = neptune.create_experiment(
    name="softmax",
    description="softmax regression on 8x8 digits",
    params=PARAMS,
    properties={"data": "digits", "version": 2},
    tags=["digits", "baseline"],
    upload_source_files=["*.py", "config/*.json"],
    abort_callback=None,
    logger=logger,
    upload_stdout=True,
    upload_stderr=True,
    send_hardware_metrics=True,
    run_monitoring_thread=True,
    handle_uncaught_exceptions=True,
    git_info=get_git_info(".")
    or GitInfo("0" * 40, message="by hand", remote_urls=["https://me:secret@example.org/digits.git"]),
    hostname="old-node",
    notebook_id=notebook.id,
    notebook_path="digits.ipynb",
)
assert isinstance(exp, Experiment)
assert neptune.get_experiment() == exp
report["internal_id"] = exp.internal_id

model = Model(data.shape[1], 10)
rng = np.random.RandomState(0)
step = 0
for epoch in range(PARAMS["epochs"]):
    order = rng.permutation(1400)
    for start in range(0, 1400, PARAMS["batch_size"]):
        batch = order[start : start + PARAMS["batch_size"]]
        loss = model.step(data[batch], labels[batch], PARAMS["lr"])
        neptune.log_metric("batch/loss", loss)
        step += 1
    accuracy = model.accuracy(data[test], labels[test])
    neptune.log_metric("epoch/loss", epoch, loss)
    neptune.send_metric("epoch/accuracy", epoch, accuracy)
    neptune.log_text("epoch/summary", epoch, "epoch %d: accuracy %.3f" % (epoch, accuracy))
    logger.info("epoch %d done", epoch)
    print("epoch %d: loss %.4f, accuracy %.3f" % (epoch, loss, accuracy))
    if epoch % 4 == 0:
        figure, axes = plt.subplots()
        axes.bar(
            range(10),
            [model.accuracy(data[test][labels[test] == c], labels[test][labels[test] == c]) for c in range(10)],
        )
        neptune.log_image(
            "per class", epoch, figure, image_name="epoch %d" % epoch, description="accuracy of each digit"
        )
        plt.close(figure)
report["steps"], report["accuracy"], report["loss"] = step, accuracy, loss

# what went wrong once, and must not stop a training
neptune.log_metric("epoch/loss", float("nan"))
neptune.log_metric("epoch/loss", float("inf"), 0.1)
neptune.log_text("epoch/summary", float("nan"), "no epoch at all")
for wrong in (lambda: neptune.log_metric("epoch/loss", "high"), lambda: neptune.log_text("epoch/summary", 3)):
    try:
        wrong()
        sys.exit("should have been refused")
    except InvalidChannelValue as error:
        print("refused:", error)
try:
    exp.append_tag("not a tag")
    sys.exit("should have been refused")
except ExperimentValidationError as error:
    print("refused:", error)

# ---------------------------------------------------------------------------------------------------- texts and images
exp.log_text("notes", "trained for %d steps" % step)
exp.send_text("notes", "and tested", timestamp=time.time())
neptune.send_text("notes", "that is all")
wrong = np.flatnonzero(model.scores(data[test]).argmax(axis=1) != labels[test])[:4]
for i, index in enumerate(wrong):
    exp.log_image("misread", i, images[test][index] / 16.0, image_name="digit %d" % labels[test][index])
picture = Image.fromarray((images[0] * 15).astype(np.uint8)).resize((64, 64))
picture.save("plots/first.png")
neptune.log_image("samples", picture)
neptune.send_image("samples", "plots/first.png", name="from a file", description="the same")
exp.send_image("samples", 7, np.random.rand(16, 16, 3))
exp.log_image("samples", np.random.rand(16, 16, 4) * 255)
exp.log_image("samples", np.random.rand(16, 16, 1))
assert exp.IMAGE_SIZE_LIMIT_MB == 15

# ---------------------------------------------------------------------------------------------------- artifacts
np.save("weights.npy", model.weights)
neptune.log_artifact("weights.npy")
neptune.log_artifact("weights.npy", "models/softmax.npy")
exp.log_artifact("plots")
exp.send_artifact(io.StringIO("accuracy,%f\n" % accuracy), "tables/accuracy.csv")
neptune.send_artifact(io.BytesIO(b"\0" * 100000), "models/large.bin")
with open("weights.npy", "rb") as stream:
    exp.log_artifact(stream, "models/stream.npy")
exp.delete_artifacts("models/stream.npy")
try:
    neptune.log_artifact("missing.npy")
    sys.exit("should have been refused")
except FileNotFound as error:
    print("refused:", error)

# ---------------------------------------------------------------------------------------------------- facts
neptune.set_property("accuracy", accuracy)
exp.set_property("temporary", "x")
exp.remove_property("temporary")
try:
    exp.remove_property("temporary")
    sys.exit("should have been refused")
except KeyError:
    pass
neptune.append_tag("finished")
neptune.append_tags("a", "b")
exp.append_tags(["c", "d"])
neptune.remove_tag("a")
exp.remove_tag("never-there")
exp.log_metric("scratch", 1)
exp.reset_log("scratch")
exp.log_metric("scratch", 5, 2.0)

# ---------------------------------------------------------------------------------------------------- read back while it runs
assert exp.name == "softmax" and exp.state == "running", (exp.name, exp.state)
assert exp.get_parameters()["lr"] == 0.5 and exp.get_parameters()["shuffle"] == "True"
assert exp.get_properties() == {"data": "digits", "version": "2", "accuracy": str(accuracy)}
assert set(exp.get_tags()) == {"digits", "baseline", "finished", "b", "c", "d"}
logs = exp.get_logs()
assert logs["epoch/accuracy"].y == accuracy and logs["epoch/accuracy"].x == PARAMS["epochs"] - 1
assert set(exp.get_channels()) == set(logs)
curve = exp.get_numeric_channels_values("epoch/loss", "epoch/accuracy")
assert list(curve.columns) == ["x", "epoch/loss", "epoch/accuracy"] and len(curve) == PARAMS["epochs"]
assert len(exp.get_numeric_channels_values("batch/loss")) == step
report["system"] = sorted(exp.get_system_properties())
report["limits"] = exp.limits
exp.download_artifact("models/softmax.npy", "downloads")
assert np.array_equal(np.load("downloads/softmax.npy"), model.weights)
print("hardware:", list(exp.get_hardware_utilization().columns))

neptune.stop()
assert exp.state == "succeeded", exp.state
try:
    neptune.get_experiment()
    sys.exit("no experiment should be running")
except NeptuneException as error:
    print("none runs:", error)

# ---------------------------------------------------------------------------------------------------- second model, which fails
try:
    with project.create_experiment("diverges", params={"lr": 1e6}, tags=["digits"], upload_source_files=[]) as failing:
        neptune.log_metric("loss", 1e30)
        raise OverflowError("loss is too large")
except OverflowError:
    pass
outer = neptune.create_experiment("outer", upload_source_files=[], upload_stdout=False, upload_stderr=False)
inner = neptune.create_experiment("inner", upload_source_files=[], upload_stdout=False, upload_stderr=False)
neptune.log_metric("depth", 2)
inner.stop("given up")
neptune.log_metric("depth", 1)
outer.stop()

# ---------------------------------------------------------------------------------------------------- third run, which is stopped from outside
asked = []
third = neptune.create_experiment(
    "endless", abort_callback=lambda: asked.append(1), upload_source_files=[], tags=["digits"]
)
while not asked:
    neptune.log_metric("beat", model.step(data, labels, 0.01))
third.stop()
assert third.state == "aborted", third.state

# ---------------------------------------------------------------------------------------------------- compare, resume, download
assert project.get_members()
board = project.get_leaderboard(tag="digits")
assert list(board.columns[:5]) == ["id", "name", "created", "finished", "owner"]
best = board.sort_values("channel_epoch/accuracy", ascending=False).iloc[0]
assert best["id"] == exp.id and best["parameter_optimizer"] == "sgd", best
report["ids"] = dict(zip(board["name"], board["id"]))
assert {e.name for e in project.get_experiments(state=["failed"])} == {"diverges", "inner"}
assert project.get_experiments(tag=["digits", "baseline"], min_running_time=100000) == []
again = project.get_experiments(id=best["id"], owner=best["owner"])[0]
assert again == exp and again is not exp
again.log_metric("test/accuracy", accuracy)
again.log_text("notes", "looked at again")
again.append_tag("best")
again.set_property("chosen", True)
again.log_artifact("weights.npy", "models/best.npy")
again.download_sources()
again.download_sources("config", "downloads")
again.download_artifacts()
again.download_artifacts("models", "downloads")
again.delete_artifacts(["models/large.bin"])
session = neptune.Session.with_default_backend()
assert project.full_id in session.get_projects(project.namespace)
assert session.get_project(project.full_id).get_experiments(tag="best") == [exp]
report["downloads"] = sorted(os.listdir(".")) + sorted(os.listdir("downloads"))
report["id"] = exp.id
with open("report.json", "w") as file:
    json.dump(report, file)
print("best:", best["name"], best["id"])
