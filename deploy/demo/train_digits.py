"""Train small networks to read 1,797 scans of handwritten digits, and log everything there is to see.

An ordinary training script: nothing in it knows of agents, brokers or collectors. Run it under `headrace run`, or alone with a
`headrace up` beside it, or with nothing at all and store later.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import headrace as hr

mpl.use("agg")

RUNS: tuple[dict[str, Any], ...] = (
    {"hidden": 16, "learning_rate": 1e-3, "batch": 32},
    {"hidden": 64, "learning_rate": 1e-3, "batch": 32},
    {"hidden": 64, "learning_rate": 1e-2, "batch": 32},
)
SEED = 7
MISREAD_MAX = 8


class Digits(NamedTuple):
    """Scans of 8 x 8 pixels, 0 to 1, and what they show; four fifths to learn from, one fifth to be tested with."""

    train: Any
    train_labels: Any
    test: Any
    test_labels: Any


def main() -> None:
    """Train one network for each of RUNS."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    epochs = parser.parse_args().epochs
    scans, labels = load_digits(return_X_y=True)
    digits = Digits(*_split(scans / 16.0, labels))
    project = hr.init("vision/digits")
    for params in RUNS:
        name = f"mlp-{params['hidden']}"
        with project.create_experiment(name=name, params={**params, "epochs": epochs}, tags=["demo"]) as experiment:
            train(experiment, digits, params, epochs)


def _split(scans: Any, labels: Any) -> tuple[Any, Any, Any, Any]:
    train, test, train_labels, test_labels = train_test_split(scans, labels, test_size=0.2, random_state=SEED)
    return train, train_labels, test, test_labels


def train(experiment: hr.Experiment, digits: Digits, params: dict[str, Any], epochs: int) -> None:
    """Train one network: a loss at every step, the test's figures at every epoch, pictures and the model at the end."""
    network = MLPClassifier((params["hidden"],), learning_rate_init=params["learning_rate"], random_state=SEED)
    experiment.set_property("data", f"{len(digits.train)} scans to learn from, {len(digits.test)} to be tested with")
    shuffle = np.random.default_rng(SEED)
    step = 0
    for epoch in range(epochs):
        order = shuffle.permutation(len(digits.train))
        for chosen in np.array_split(order, len(order) // params["batch"]):
            network.partial_fit(digits.train[chosen], digits.train_labels[chosen], classes=range(10))
            experiment.log_metric("train/loss", step, network.loss_)
            step += 1
        accuracy = network.score(digits.test, digits.test_labels)
        loss = log_loss(digits.test_labels, network.predict_proba(digits.test))
        experiment.log_metrics({"test/loss": loss, "test/accuracy": accuracy}, step=step)
        if epoch % 10 == 9:
            print(f"{params}: epoch {epoch + 1}, accuracy {accuracy:.3f}")
            experiment.log_text("notes", f"after epoch {epoch + 1} the test reads {accuracy:.1%} right")
    _log_pictures(experiment, network, digits)
    _log_model(experiment, network)
    if network.score(digits.test, digits.test_labels) > 0.97:
        experiment.append_tag("good")


def _log_pictures(experiment: hr.Experiment, network: MLPClassifier, digits: Digits) -> None:
    import matplotlib.pyplot as plt

    read = network.predict(digits.test)
    figure, axes = plt.subplots(figsize=(5, 5))
    axes.imshow(confusion_matrix(digits.test_labels, read), cmap="Blues")
    axes.set(xlabel="read as", ylabel="written", xticks=range(10), yticks=range(10))
    experiment.log_image("confusion", figure)
    plt.close(figure)
    for index in np.flatnonzero(read != digits.test_labels)[:MISREAD_MAX]:
        scan = np.kron(digits.test[index].reshape(8, 8), np.ones((8, 8)))
        name = f"a {digits.test_labels[index]} read as a {read[index]}"
        experiment.log_image("misread", (255 * scan).astype(np.uint8), image_name=name)


def _log_model(experiment: hr.Experiment, network: MLPClassifier) -> None:
    """The weights as plain arrays: anyone can load them, and loading them runs no code."""
    arrays = {f"weights{layer}": weights for layer, weights in enumerate(network.coefs_)}
    arrays |= {f"biases{layer}": biases for layer, biases in enumerate(network.intercepts_)}
    np.savez("model.npz", allow_pickle=False, **arrays)
    experiment.log_artifact("model.npz")


if __name__ == "__main__":
    main()
