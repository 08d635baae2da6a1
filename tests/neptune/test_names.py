"""Names: what the old client's documentation named is there, takes the same arguments, and is reached by the same imports."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from headrace import neptune

PROJECT = {
    "__init__": "backend internal_id namespace name",
    "get_members": "",
    "get_experiments": "id=None state=None owner=None tag=None min_running_time=None",
    "get_leaderboard": "id=None state=None owner=None tag=None min_running_time=None",
    "create_experiment": "name=None description=None params=None properties=None tags=None upload_source_files=None "
    "abort_callback=None logger=None upload_stdout=True upload_stderr=True send_hardware_metrics=True "
    "run_monitoring_thread=True handle_uncaught_exceptions=True git_info=None hostname=None notebook_id=None "
    "notebook_path=None",
    "create_notebook": "",
    "get_notebook": "notebook_id",
}
EXPERIMENT = {
    "__init__": "backend project _id internal_id",
    "get_system_properties": "",
    "get_tags": "",
    "append_tag": "tag *tags",
    "append_tags": "tag *tags",
    "remove_tag": "tag",
    "get_channels": "",
    "get_logs": "",
    "send_metric": "channel_name x y=None timestamp=None",
    "log_metric": "log_name x y=None timestamp=None",
    "send_text": "channel_name x y=None timestamp=None",
    "log_text": "log_name x y=None timestamp=None",
    "send_image": "channel_name x y=None name=None description=None timestamp=None",
    "log_image": "log_name x y=None image_name=None description=None timestamp=None",
    "send_artifact": "artifact destination=None",
    "log_artifact": "artifact destination=None",
    "delete_artifacts": "path",
    "download_artifact": "path destination_dir=None",
    "download_sources": "path=None destination_dir=None",
    "download_artifacts": "path=None destination_dir=None",
    "reset_log": "log_name",
    "get_parameters": "",
    "get_properties": "",
    "set_property": "key value",
    "remove_property": "key",
    "get_hardware_utilization": "",
    "get_numeric_channels_values": "*channel_names",
    "stop": "exc_tb=None",
    "__enter__": "",
    "__exit__": "exc_type exc_val exc_tb",
    "_get_valid_x_y": "x y",
}
OF_THE_CURRENT = """append_tag append_tags remove_tag set_property remove_property send_metric log_metric send_text log_text
    send_image log_image send_artifact log_artifact delete_artifacts"""
MODULE = {
    "init": "project_qualified_name=None api_token=None proxies=None backend=None",
    "set_project": "project_qualified_name",
    "get_experiment": "",
    "stop": "traceback=None",
    **{name: EXPERIMENT[name] for name in OF_THE_CURRENT.split()},
}
SESSION = {
    "__init__": "api_token=None proxies=None backend=None",
    "with_default_backend": "api_token=None",
    "get_project": "project_qualified_name",
    "get_projects": "namespace",
}
NOTEBOOK = {"__init__": "backend project _id owner", "add_checkpoint": "file_path", "get_path": "", "get_name": ""}
GIT_INFO = {
    "__init__": "commit_id message='' author_name='' author_email='' commit_date='' repository_dirty=True active_branch='' "
    "remote_urls=None"
}

OF_PROGRAMS = """NeptuneException NeptuneUninitializedException FileNotFound NotAFile NotADirectory InvalidNotebookPath
    InvalidChannelX
    NoChannelValue NeptuneLibraryNotInstalledException InvalidChannelValue NeptuneNoExperimentContextException
    NeptuneMissingApiTokenException NeptuneMissingProjectQualifiedNameException
    NeptuneIncorrectProjectQualifiedNameException InvalidNeptuneBackend DeprecatedApiToken CannotResolveHostname
    UnsupportedClientVersion Uninitialized NoExperimentContext MissingApiToken MissingProjectQualifiedName
    IncorrectProjectQualifiedName LibraryNotInstalled"""
OF_SERVERS = """NeptuneApiException SSLError ConnectionLost ServerError Unauthorized Forbidden InvalidApiKey NamespaceNotFound
    ProjectNotFound PathInProjectNotFound NotebookNotFound ExperimentNotFound ChannelNotFound
    ExperimentAlreadyFinished ExperimentLimitReached StorageLimitReached ExperimentValidationError
    ChannelAlreadyExists ChannelDoesNotExist ChannelsValuesSendBatchError"""

PLACES: list[tuple[Any, dict[str, str]]] = [
    (neptune, MODULE),
    (neptune.projects.Project, PROJECT),
    (neptune.experiments.Experiment, EXPERIMENT),
    (neptune.sessions.Session, SESSION),
    (neptune.notebook.Notebook, NOTEBOOK),
    (neptune.git_info.GitInfo, GIT_INFO),
    (neptune.utils, {"get_git_info": "repo_path=None", "discover_git_repo_location": ""}),
]


def written(call: Any) -> str:
    """A call's arguments as the tables above have them. What can only be given by name came later."""
    shown = []
    for name, parameter in inspect.signature(call).parameters.items():
        if name == "self" or parameter.kind is parameter.KEYWORD_ONLY:
            continue
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        shown.append(f"{star}{name}{default}")
    return " ".join(shown)


@pytest.mark.parametrize(("place", "calls"), PLACES, ids=lambda given: getattr(given, "__name__", ""))
def test_every_call_takes_the_old_arguments(place: Any, calls: dict[str, str]) -> None:
    """By the same names, in the same order, with the same defaults."""
    assert {name: written(getattr(place, name)) for name in calls} == calls


def test_attributes_are_there() -> None:
    """Those of the references that are no calls."""
    for name in ("id", "name", "state", "internal_id", "limits"):
        assert isinstance(vars(neptune.experiments.Experiment)[name], property)
    assert neptune.experiments.Experiment.IMAGE_SIZE_LIMIT_MB == 15
    assert isinstance(vars(neptune.Project)["full_id"], property)
    assert neptune.Session is neptune.sessions.Session
    assert neptune.projects._logger.name == "neptune.projects"
    assert neptune.experiments._logger.name == "neptune.experiments"


def test_exceptions_stand_where_they_stood() -> None:
    """Those of programs in `exceptions`, those of servers in `api_exceptions`, and all in the one that the references mention."""
    programs, servers = OF_PROGRAMS.split(), OF_SERVERS.split()
    root = neptune.exceptions.NeptuneException
    assert all(issubclass(getattr(neptune.exceptions, name), root) for name in programs + servers)
    assert all(getattr(neptune.api_exceptions, name) is getattr(neptune.exceptions, name) for name in servers)
    assert set(neptune.api_exceptions.__all__) == {*servers, "WorkspaceNotFound"}
