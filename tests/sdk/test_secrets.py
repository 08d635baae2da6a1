"""Secrets are masked before the journal: by what they are called, and by how they look."""

from __future__ import annotations

import base64
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace import secrets
from headrace.errors import InvalidValue, TelemetryWarning
from headrace.git import GitInfo
from headrace.secrets import HIDDEN, SHAPES, is_secret, masked_text
from headrace_proto.events import Kind
from headrace_proto.home import Home
from headrace_proto.ids import statepoint_id
from tests.sdk.conftest import Run
from tests.sdk.journals import journal_of, journals

Create = Callable[..., hr.Experiment]

SEGMENT = "Ab3" * 12  # of the letters and digits that tokens are made of
HEX = "0123456789abcdef" * 4
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow" + "IBAA\n" * 3 + "-----END RSA PRIVATE KEY-----"
NEPTUNE = base64.b64encode(json.dumps({"api_address": "https://app.neptune.ai", "api_key": "1"}).encode()).decode()

EXAMPLES = {
    "URL with user or password": [
        "postgres://«me:p@ss»@db/x",
        "https://«tokenabc»@example.org/a.git",
        "redis://«:pw»@h:6379",
    ],
    "URL with a key in its query": [
        "https://e.org/a?x=1&access_token=«abc»&y",
        f"https://s3/x?X-Amz-Signature=«{HEX}»",
    ],
    "PEM private key": [f"«{PEM}»", f"«{PEM.replace('RSA ', '')}»"],
    "assignment": [
        "(lr=0.1, api_key='«abcd»', n=3)",
        "{'password': '«hunter2»'}",
        "password=\"«two words, 'and' signs;»\")",
        "api_key = b'«a\\'b(c»'",
        f"WANDB_API_KEY=«{HEX[:40]}»",
    ],
    "command-line option": [
        "train.py --api-key «abcd» --lr 1",
        "run --hf-token=«abcdefgh»",
        "x --password '«two words»' y",
    ],
    "authorization header": [
        "{'Authorization': 'Bearer «abcdefghijklmnop»'}",
        "authorization: Basic «YWRhOnNlY3JldHNlY3JldA==»",
    ],
    "JSON web token": [f"«eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.{SEGMENT}»"],
    "Neptune": [f"«{NEPTUNE}»"],
    "AWS key id": ["«AKIAIOSFODNN7EXAMPLE»", "«ASIAIOSFODNN7EXAMPLE»"],
    "AWS secret key": ["aws_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»"],
    "GitHub": [f"«ghp_{SEGMENT}»", f"«github_pat_11ABCDEFG0_{SEGMENT}»"],
    "GitLab": [f"«glpat-{SEGMENT[:20]}»"],
    "Hugging Face": [f"«hf_{SEGMENT[:34]}»"],
    "Weights & Biases": [f"«wandb_v1_{SEGMENT * 2}»", f"wandb login «{HEX[:40]}»"],
    "OpenAI, Anthropic": [f"«sk-proj-{SEGMENT}»", f"«sk-or-v1-{HEX}»", f"«sk-ant-api03-{SEGMENT}»"],
    "Google": [f"«AIza{SEGMENT[:35]}»", f"«ya29.{SEGMENT}»", f"«GOCSPX-{SEGMENT}»"],
    "Azure": [f"AccountName=x;AccountKey=«{SEGMENT * 2}==»;EndpointSuffix=y"],
    "Slack": [f"«xoxb-1234567890-{SEGMENT}»", f"https://hooks.slack.com/services/«T0/B0/{SEGMENT}»"],
    "Discord": [f"https://discord.com/api/webhooks/«123/{SEGMENT}»"],
    "Telegram": [f"«123456789:AA{SEGMENT[:33]}»"],
    "Stripe": [f"«sk_live_{SEGMENT}»", f"«rk_test_{SEGMENT}»"],
    "SendGrid": [f"«SG.{SEGMENT[:22]}.{SEGMENT}»"],
    "npm": [f"«npm_{SEGMENT}»"],
    "PyPI": [f"«pypi-AgEIcHlwaS5vcmc{SEGMENT}»"],
    "Docker Hub": [f"«dckr_pat_{SEGMENT}»"],
    "Databricks": [f"«dapi{HEX[:32]}»"],
    "DigitalOcean": [f"«dop_v1_{HEX}»"],
    "HashiCorp Vault": [f"«hvs.{SEGMENT}»"],
    "Replicate": [f"«r8_{SEGMENT}»"],
    "age": [f"«AGE-SECRET-KEY-1{'QPZRY9X8GF' * 6}»"],
}
"""Of each shape; between the marks what is to be hidden."""

HARMLESS = [
    "epoch 12: loss=0.52 acc=0.91 tokens=4096 100%|###| 3/3 [00:00<00:00, 12it/s]",
    "https://example.org/a?x=1 and s3://bucket/x@y and git@github.com:a/b.git and ssh://git@github.com/a.git",
    "commit 0123456789abcdef0123456789abcdef01234567",
    "--max-token 4096 --pad-token <pad> --key-dim 64 --secret",
    "the key: value stores; password: see the wiki page, token: a word",
    "-" * 200,
    "pass 3 of 5, api_key=None, password=***",
    "model=sk-resnet-50-pretrained-imagenet1k sk-learn-pipeline-of-many-steps",
    "aws_commit=0123456789abcdef0123456789abcdef01234567",
    "x --bos-token '<bos>' --pad-token [PAD]",
]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name has been told yet, and nothing of another test is on the list."""
    monkeypatch.setattr(secrets, "_told", set())
    monkeypatch.setattr(secrets, "_added", [])
    monkeypatch.setattr(secrets, "_list", None)
    monkeypatch.setattr(secrets, "SHAPES", dict(SHAPES))
    monkeypatch.delenv("HEADRACE_SECRETS", raising=False)


# -- The list ------------------------------------------------------------------------------------------------------------


def test_every_shape_has_an_example() -> None:
    """A rule that nobody has tried is none."""
    assert EXAMPLES.keys() == SHAPES.keys()


@pytest.mark.parametrize("title", SHAPES)
def test_a_secret_is_told_by_its_shape(title: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever in a text it stands, by its own rule alone; the text around it stays."""
    monkeypatch.setattr(secrets, "SHAPES", {title: SHAPES[title]})
    for example in EXAMPLES[title]:
        text = example.replace("«", "").replace("»", "")
        expected = re.sub("«.*»", HIDDEN, example, flags=re.DOTALL)
        assert masked_text(f"before\n{text} after") == f"before\n{expected} after"


def test_what_stands_around_a_secret_stays() -> None:
    """So that the text still says what it said."""
    assert masked_text("postgres://me:pw@db:5432/x") == f"postgres://{HIDDEN}@db:5432/x"
    assert masked_text("Namespace(lr=0.1, api_key='abcd', n=3)") == f"Namespace(lr=0.1, api_key='{HIDDEN}', n=3)"
    assert masked_text("x --api-key abcd --lr 1") == f"x --api-key {HIDDEN} --lr 1"
    assert masked_text("https://e.org/?a=1&token=b&c=2") == f"https://e.org/?a=1&token={HIDDEN}&c=2"
    assert masked_text(f"a {PEM} b") == f"a {HIDDEN} b"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text: str) -> None:
    """Word for word."""
    assert masked_text(text) == text


@given(st.text(alphabet="abcAB01-_.:/@=?& \n'\"", max_size=200))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    """Whatever is masked."""
    once = masked_text(text)
    assert masked_text(once) == once


@pytest.mark.parametrize(
    "word",
    [
        "a.",
        "-",
        "- ",
        "://",
        "?token=",
        "eyJ",
        "api_key",
        "a@",
        "aws ",
        "authorization: ",
        "[",
        PEM[:31],
        "sk-",
        "api_key='",
        "password=b",
        "--token '",
    ],
)
def test_no_rule_takes_more_than_time_in_proportion(word: str) -> None:
    """A line of a million hostile characters does not stop a trainer; a rule of quadratic time would stop this test."""
    assert masked_text("https://" + word * (1_000_000 // len(word)))


def test_names_of_secrets_and_others() -> None:
    """By their last words, however they are written; not those that only look alike."""
    secret = (
        "api_key apiKey API_KEY api-key wandb/api_key openai.api_key2 password db_password DB_PASSWORD_PROD passwd token hf_token "
        "accessToken client_secret AWS_SECRET_ACCESS_KEY aws_session_token private_key credentials auth connection_string secret "
        "db_pass openai_key aws_creds password_hash connectionString"
    )
    harmless = (
        "lr max_tokens num_tokens pad_token eos_token mask_token tokens_per_batch tokenizer token_dim key_dim num_keys monkey "
        "skip_connection connection class_token sos_token trigger_token max_token token_dropout sort_key key "
        "secret_santa_seed password_file api_key_file author authors passes keyboard cookie_size time_per_token"
    )
    assert [name for name in secret.split() if not is_secret(name)] == []
    assert [name for name in harmless.split() if is_secret(name)] == []


# -- Where they are given ------------------------------------------------------------------------------------------------


def everything(home: Home) -> bytes:
    """Every byte below a home."""
    return b"".join(path.read_bytes() for path in Path(home.root).rglob("*") if path.is_file())


def test_parameters_and_properties_are_masked_before_the_journal(create: Create, home: Home) -> None:
    """Given at creation or later, deep inside others, by name or by shape: no byte of them is anywhere in the home."""
    with pytest.warns(TelemetryWarning, match="looks like a secret"):
        experiment = create(
            params={
                "lr": 0.1,
                "api_key": "hunter-1",
                "db": {"password": "hunter-2", "port": 5432, "hosts": [{"token": "hunter-3"}]},
                "secrets": ["hunter-4", {"x": "hunter-5"}],
                "pad_token": "<pad>",
                "token": "[MASK]",
                "max_tokens": 7,
                "url": "https://ada:hunter-6@example.org/x",
                "use_auth": True,
                "password": 123456789,
                "bos_token_id": 3,
            },
            properties={"github_token": "hunter-7", "command": "x --password hunter-8", "note": "plain"},
            description=f"with {NEPTUNE}",
        )
    with pytest.warns(TelemetryWarning, match="secret_key"):
        experiment.log_parameter("secret_key", "hunter-9")
    with pytest.warns(TelemetryWarning, match="hf_token"):
        experiment.set_property("hf_token", "hunter-10")
    created = journal_of(experiment).created
    assert created["params"] == {
        "lr": 0.1,
        "api_key": HIDDEN,
        "db": {"password": HIDDEN, "port": 5432, "hosts": [{"token": HIDDEN}]},
        "secrets": [HIDDEN, {"x": HIDDEN}],
        "pad_token": "<pad>",
        "token": "[MASK]",
        "max_tokens": 7,
        "url": f"https://{HIDDEN}@example.org/x",
        "use_auth": True,
        "password": HIDDEN,
        "bos_token_id": 3,
    }
    assert created["properties"] == {"github_token": HIDDEN, "command": f"x --password {HIDDEN}", "note": "plain"}
    assert created["description"] == f"with {HIDDEN}"
    assert experiment.params["secret_key"] == experiment.properties["hf_token"] == HIDDEN
    experiment.stop()
    assert not any(secret in everything(home) for secret in (b"hunter", b"123456789", NEPTUNE.encode()))


def test_a_name_is_told_once(create: Create, recwarn: pytest.WarningsRecorder) -> None:
    """Not for each of a thousand experiments, and not for what is no secret."""
    for _ in range(3):
        create(params={"lr": 1, "api_key": "a"}).stop()
    assert [str(warning.message).split("'")[1] for warning in recwarn] == ["api_key"]


@pytest.mark.filterwarnings("ignore::headrace.errors.TelemetryWarning")
def test_nan_is_no_secret(create: Create) -> None:
    """A value that is not equal to itself is still the value that was given: nobody is warned."""
    assert str(create(params={"loss": float("nan")}).params["loss"]) == "nan"


def test_an_id_made_of_parameters_is_made_of_the_masked_ones(create: Create) -> None:
    """It can be computed again from what is stored; another key is no other experiment, another parameter is."""
    ids = []
    for params in ({"lr": 1, "api_key": "a"}, {"lr": 1, "api_key": "b"}, {"lr": 2, "api_key": "a"}):
        with create(params=params) as experiment:
            stored = journal_of(experiment).created["params"]
            assert statepoint_id(experiment.params) == statepoint_id(stored)
            ids.append(statepoint_id(stored))
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.filterwarnings("ignore::headrace.errors.TelemetryWarning")
def test_a_parameter_that_was_fixed_may_be_given_again_with_its_secret(create: Create) -> None:
    """It is the same parameter, masked."""
    experiment = create(params={"api_key": "a"})
    experiment.log_parameter("api_key", "a")
    experiment.log_parameter("api_key", "rotated")
    assert experiment.params == {"api_key": HIDDEN}


def test_what_git_says_is_masked(create: Create, home: Home) -> None:
    """A remote loses its userinfo also when the caller gives it, and a message what it should not hold."""
    info = GitInfo("c0ffee", "main", "https://ada:p@ss@example.org/a.git", True, f"add ghp_{SEGMENT}", "Ada")
    with create(git_info=info) as experiment:
        [facts] = journal_of(experiment).of(Kind.FACTS)[-1]
    assert facts["git"] == {
        "commit": "c0ffee",
        "branch": "main",
        "remote": "https://example.org/a.git",
        "dirty": True,
        "message": f"add {HIDDEN}",
        "author": "Ada",
    }
    assert b"p@ss" not in everything(home)


def test_captured_text_is_masked(run_script: Run, home: Home) -> None:
    """stdout, stderr, a logger, the traceback; the program's own output is as it was."""
    done = run_script(
        "import logging\n"
        "logger.warning('log in with %s', 'ghp_' + 'Ab3' * 12)\n"
        f"print({PEM!r})\nprint('api_key=hunter-1', file=sys.stderr)\nprint('after')\n"
        "raise RuntimeError('postgres://me:hunter-2@db/x refused')\n",
        "upload_source_files=[], git_info=False, logger=(logger := __import__('logging').getLogger('t'))",
    )
    assert PEM in done.stdout
    assert "hunter-1" in done.stderr
    assert "hunter-2" in done.stderr
    [journal] = journals(home)
    assert journal.texts("stdout") == [HIDDEN, "after"]
    assert journal.texts("logger") == [f"log in with {HIDDEN}"]
    assert journal.detail.endswith(f"RuntimeError: postgres://{HIDDEN}@db/x refused\n")
    written = everything(home)
    assert not any(secret in written for secret in (b"hunter", b"MIIEow", b"IBAA", b"ghp_"))


def test_what_is_logged_by_a_call_of_its_own_is_the_callers(create: Create) -> None:
    """A text is kept whole, and so is a file."""
    with create() as experiment:
        experiment.log_text("notes", f"ghp_{SEGMENT}")
        assert journal_of(experiment).texts("notes") == [f"ghp_{SEGMENT}"]


# -- The setting ---------------------------------------------------------------------------------------------------------


def test_masking_can_be_switched_off(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment, for a process and its children; a git remote loses its userinfo all the same."""
    monkeypatch.setenv("HEADRACE_SECRETS", "off")
    with create(params={"api_key": "a", "u": "x://a:b@c"}, git_info=GitInfo(remote="https://a:b@c/d")) as experiment:
        experiment._log_line("stdout", "password=hunter2")
        journal = journal_of(experiment)
    assert journal.created["params"] == {"api_key": "a", "u": "x://a:b@c"}
    assert journal.texts("stdout") == ["password=hunter2"]
    assert journal.of(Kind.FACTS)[-1] == [{"git": {"remote": "https://c/d"}}]


@pytest.mark.filterwarnings("ignore::headrace.errors.TelemetryWarning")
def test_the_list_can_be_extended(create: Create, monkeypatch: pytest.MonkeyPatch) -> None:
    """By names from the environment; by names and shapes from the program. A shape that is no expression is refused."""
    monkeypatch.setenv("HEADRACE_SECRETS", "badge, doorCode")
    secrets.add("locker", shapes={"badge number": r"B-\d{4}"})
    params = {"badge": "1", "front_door_code": "2", "locker": "3", "note": "B-1234", "api_key": "4", "badge_size": "5"}
    with create(params=params) as experiment:
        kept = dict(experiment.params)
    assert kept == dict.fromkeys(params, HIDDEN) | {"badge_size": "5"}
    with pytest.raises(InvalidValue, match="no regular expression"):
        secrets.add(shapes={"bad": "("})


def test_logging_scalars_never_asks_for_secrets() -> None:
    """The list is not even loaded: it costs the hot path nothing."""
    code = (
        "import headrace as hr, sys, tempfile\n"
        "exp = hr.init('a/b', home=tempfile.mkdtemp()).create_experiment(upload_source_files=[], git_info=False, "
        "upload_stdout=False, upload_stderr=False)\n"
        "before = 'headrace.secrets' in sys.modules\n"
        "exp.log_metric('loss', 0.5)\nexp.log_metrics({'a': 1, 'b': 2})\nexp.log_text('notes', 'hello')\n"
        "print(before, 'headrace.secrets' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_a_logger_that_is_none_is_refused(create: Create) -> None:
    """At the call, before anything is journaled."""
    wrong: Any = "root"
    with pytest.raises(InvalidValue, match="getLogger"):
        create(logger=wrong)
    create(logger=logging.getLogger("test_secrets")).stop()
