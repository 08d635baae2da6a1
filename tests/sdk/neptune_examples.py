"""Every example of the references of Neptune's `Project` and `Experiment`, in their order, as they stand there.

Each function is one page's example, or several of one member. A line that differs says in a comment how and why; what an example
takes for granted (files, an experiment of a name) `test_neptune_examples` makes before.
"""

# ruff: noqa: ICN001, RET504 - as the pages have it

from __future__ import annotations

from typing import Any

import headrace as neptune  # it was `import neptune`

# -- Project ------------------------------------------------------------------------------------------------------------


def members(session: neptune.Session) -> list[str]:
    """Project.get_members."""
    project = session.get_projects("neptune-ai")["neptune-ai/Salt-Detection"]
    return project.get_members()


def experiments(session: neptune.Session) -> Any:
    """Project.get_experiments."""
    # Fetch a project
    project = session.get_projects("neptune-ai")["neptune-ai/Salt-Detection"]

    # Get list of experiments
    return project.get_experiments(state=["aborted"], owner=["neyo"], min_running_time=100000)


def leaderboard(session: neptune.Session) -> Any:
    """Project.get_leaderboard."""
    # Fetch a project.
    project = session.get_projects("neptune-ai")["neptune-ai/Salt-Detection"]

    # Get DataFrame that resembles experiment view.
    return project.get_leaderboard(state=["aborted"], owner=["neyo"], min_running_time=100000)


def create() -> list[neptune.Experiment]:
    """Project.create_experiment."""
    # minimal invoke
    neptune.create_experiment()

    # explicitly return experiment object
    experiment = neptune.create_experiment()

    made = [
        experiment,
        # create experiment with name and two parameters
        neptune.create_experiment(name="first-pytorch-ever", params={"lr": 0.0005, "dropout": 0.2}),
        # create experiment with name and description, and no sources files uploaded
        neptune.create_experiment(
            name="neural-net-mnist", description="neural net trained on MNIST", upload_source_files=[]
        ),
        # Send all py files in cwd (excluding hidden files with names beginning with a dot)
        neptune.create_experiment(upload_source_files="*.py"),
        # Send all py files from all subdirectories (excluding hidden files with names beginning with a dot)
        # Supported on Python 3.5 and later.
        neptune.create_experiment(upload_source_files="**/*.py"),
        # Send all files and directories in cwd (excluding hidden files with names beginning with a dot)
        neptune.create_experiment(upload_source_files="*"),
        # Send all files and directories in cwd including hidden files
        neptune.create_experiment(upload_source_files=["*", ".*"]),
        # Send files with names being a single character followed by '.py' extension.
        neptune.create_experiment(upload_source_files="?.py"),
        # larger example
        neptune.create_experiment(
            name="first-pytorch-ever",
            params={"lr": 0.0005, "dropout": 0.2},
            properties={"key1": "value1", "key2": 17, "key3": "other-value"},
            description="write longer description here",
            tags=["list-of", "tags", "goes-here", "as-list-of-strings"],
            upload_source_files=["training_with_pytorch.py", "net.py"],
        ),
    ]
    return made


def new_notebook() -> Any:
    """Project.create_notebook."""
    # Instantiate a session and fetch a project
    project = neptune.init()

    # Create a notebook in Neptune
    notebook = project.create_notebook()
    return notebook


def old_notebook(notebook_id: str) -> Any:
    """Project.get_notebook."""
    # Instantiate a session and fetch a project
    project = neptune.init()

    # Get a notebook object
    notebook = project.get_notebook(
        notebook_id
    )  # the page has an id of somebody's: 'd1c1b494-0620-4e54-93d5-29f4e848a51a'
    return notebook


# -- Experiment ---------------------------------------------------------------------------------------------------------


def first(project: neptune.Project) -> neptune.Experiment:
    """Experiment."""
    experiment = project.create_experiment()
    return experiment


def attributes(project: neptune.Project, experiment: neptune.Experiment) -> tuple[str, str, str]:
    """Experiment.id, name, state."""
    exp_id = experiment.id

    named = project.create_experiment("exp_name")
    exp_name = named.name
    named.stop()  # not on the page: here the other experiment goes on

    state_str = experiment.state
    return exp_id, exp_name, state_str


def system_properties(experiment: Any) -> Any:
    """Experiment.get_system_properties."""
    sys_properties = experiment.get_system_properties()  # the page has it without (), which is the method itself
    return sys_properties


def tags(experiment: Any) -> Any:
    """Experiment.get_tags, append_tag, remove_tag."""
    neptune.append_tag("new-tag")  # single tag
    neptune.append_tag("first-tag", "second-tag", "third-tag")  # few str
    neptune.append_tag(["first-tag", "second-tag", "third-tag"])  # list of str

    # assuming experiment has tags: `['tag-1', 'tag-2']`.
    experiment.remove_tag("tag-1")

    return experiment.get_tags()


def metrics(experiment: Any) -> Any:
    """Experiment.log_metric, get_logs."""
    # Both calls below have the same effect

    # Common invocation, providing log name and value
    experiment.log_metric("accuracy", 0.5)
    experiment.log_metric("accuracy", 0.65)
    experiment.log_metric("accuracy", 0.8)

    # Providing both x and y params
    experiment.log_metric("accuracy", 0, 0.5)
    experiment.log_metric("accuracy", 1, 0.65)
    experiment.log_metric("accuracy", 2, 0.8)

    exp_logs = experiment.get_logs()
    return exp_logs


def texts(data_item: object, val_loss: float) -> None:
    """Experiment.log_text."""
    # common case, where log name and data are passed
    neptune.log_text("my_text_data", str(data_item))

    # log_name, x and timestamp are passed
    neptune.log_text(log_name="logging_losses_as_text", x=str(val_loss), timestamp=1560430912)


def images(experiment: Any) -> None:
    """Experiment.log_image."""
    import numpy
    import PIL.Image

    # path to image file
    experiment.log_image("bbox_images", "pictures/image.png")
    experiment.log_image("bbox_images", x=5, y="pictures/image.png")  # the page lacks `y=`, and is no Python
    experiment.log_image("bbox_images", "pictures/image.png", image_name="difficult_case")

    # PIL image
    img = PIL.Image.new("RGB", (60, 30), color="red")
    experiment.log_image("fig", img)

    # 2d numpy array
    array = numpy.random.rand(300, 200) * 255
    experiment.log_image("fig", array)

    # 3d grayscale array
    array = numpy.random.rand(300, 200, 1) * 255
    experiment.log_image("fig", array)

    # 3d RGB array
    array = numpy.random.rand(300, 200, 3) * 255
    experiment.log_image("fig", array)

    # 3d RGBA array
    array = numpy.random.rand(300, 200, 4) * 255
    experiment.log_image("fig", array)


def figures(experiment: Any) -> None:
    """Experiment.log_image, of matplotlib."""
    # matplotlib figure example 1
    from matplotlib import pyplot
    from matplotlib import pyplot as plt  # the page calls it by both names, and imports one

    pyplot.plot([1, 2, 3, 4])
    pyplot.ylabel("some numbers")
    experiment.log_image("plots", plt.gcf())

    # matplotlib figure example 2
    import numpy

    numpy.random.seed(19680801)
    data = numpy.random.randn(2, 100)

    figure, axs = pyplot.subplots(2, 2, figsize=(5, 5))
    axs[0, 0].hist(data[0])
    axs[1, 0].scatter(data[0], data[1])
    axs[0, 1].plot(data[0], data[1])
    axs[1, 1].hist2d(data[0], data[1])

    experiment.log_image("diagrams", figure)


def artifacts(experiment: Any) -> None:
    """Experiment.log_artifact."""
    # simple use
    experiment.log_artifact("images/wrong_prediction_1.png")

    # save file in other directory
    experiment.log_artifact("images/wrong_prediction_1.png", "validation/images/wrong_prediction_1.png")

    # save file under different name
    experiment.log_artifact("images/wrong_prediction_1.png", "images/my_image_1.png")


def downloads(experiment: Any, home: str, tmp: str) -> None:
    """Experiment.download_artifact, download_sources, download_artifacts."""
    experiment.download_artifact("forest_results.pkl", f"{home}/user/files/")  # the page names a user's own folder

    # Download all experiment sources to current working directory
    experiment.download_sources()

    # Download a single directory
    experiment.download_sources("src/my-module")

    # Download all experiment sources to user-defined directory
    experiment.download_sources(destination_dir=f"{tmp}/sources/")  # the page names everybody's folder

    # Download a single directory to user-defined directory
    experiment.download_sources("src/my-module", "sources/")

    # Download all experiment artifacts to current working directory
    experiment.download_artifacts()

    # Download a single directory
    experiment.download_artifacts("data/images")

    # Download all experiment artifacts to user-defined directory
    experiment.download_artifacts(destination_dir=f"{tmp}/artifacts/")  # likewise

    # Download a single directory to user-defined directory
    experiment.download_artifacts("data/images", "artifacts/")


def deletions(experiment: Any) -> None:
    """Experiment.delete_artifacts."""
    experiment.delete_artifacts("forest_results.pkl")
    experiment.delete_artifacts(["other_results.pkl", "directory"])  # the page deletes forest_results.pkl twice
    experiment.delete_artifacts(
        list(experiment.stored().artifacts)
    )  # '' on the page: an empty path never means everything


def reset(experiment: Any) -> None:
    """Experiment.reset_log."""
    experiment.reset_log("my_metric")


def facts(experiment: Any) -> tuple[Any, Any]:
    """Experiment.set_property, remove_property, get_parameters, get_properties."""
    experiment.set_property("model", "LightGBM")
    experiment.set_property("magic-number", 7)

    experiment.remove_property("host")

    exp_params = experiment.get_parameters()

    exp_properties = experiment.get_properties()
    return exp_params, exp_properties


def hardware(experiment: Any) -> Any:
    """Experiment.get_hardware_utilization."""
    hardware_df = experiment.get_hardware_utilization()
    return hardware_df


def channels(experiment: Any) -> tuple[Any, Any]:
    """Experiment.get_numeric_channels_values."""
    batch_channels = experiment.get_numeric_channels_values("batch-1-loss", "batch-2-metric")
    epoch_channels = experiment.get_numeric_channels_values("epoch-1-loss", "epoch-2-metric")
    return batch_channels, epoch_channels


def success(experiment: Any) -> None:
    """Experiment.stop."""
    # Marks experiment as succeeded
    experiment.stop()


def failure(experiment: Any, ex: Exception) -> None:
    """Experiment.stop, of an exception."""
    # Assuming 'ex' is some exception,
    # it marks experiment as failed with exception info in experiment details.
    experiment.stop(str(ex))
