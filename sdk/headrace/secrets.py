"""What is never written down: keys, tokens and passwords. They are masked, as `***`, before anything reaches the journal.

| given as                                             | is masked                                                          |
|------------------------------------------------------|--------------------------------------------------------------------|
| a parameter or property, also deep inside one        | all of it, when its name ends in one of `NAMES` (`db.password`,    |
|                                                      | `hfToken`, `AWS_SECRET_ACCESS_KEY`, `api_key_2`); else what in its |
|                                                      | text has one of the `SHAPES`                                       |
| a name, description, author or hostname              | what has one of the `SHAPES`                                       |
| what git says; a remote has no user or password      | what has one of the `SHAPES`                                       |
| stdout, stderr, a logger's records, tracebacks       | what has one of the `SHAPES`; of a PEM key all lines               |
| metrics, texts, images, files, sources: what is      | nothing                                                            |
| logged by a call of its own                          |                                                                    |

A number, a truth value or None under such a name says nothing and stays, but a number that is a password. Names that end in one of
`HARMLESS` are no secrets, nor are tokenizers' tokens (`<pad>`, `[MASK]`).

**A state point, or any id made of parameters, is computed from the masked ones.** So it can be computed again from what is
stored; a rotated key does not make another experiment of the same one; and nobody can try passwords against an id.

HEADRACE_SECRETS changes the list for a process and its children: `off` masks nothing (git remotes still lose their userinfo),
`badge,door_code` adds names. `add` does the same for a program, and adds shapes.

Sources of the shapes: the vendors' pages on their tokens' formats, and the rules of gitleaks and detect-secrets.
"""

from __future__ import annotations

import os
import re

from headrace_proto.errors import InvalidValue
from headrace_proto.record import Record
from headrace_proto.warning import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

VARIABLE: Final = "HEADRACE_SECRETS"
OFF: Final = "off"
HIDDEN: Final = "***"

NAMES: Final = (
    "access_key", "account_key", "api_key", "apikey", "accesskey", "auth", "auth_key", "authkey", "authorization", "bearer",
    "client_key", "connection_string", "cookie", "credential", "credentials", "encryption_key", "id_rsa", "jwt", "license_key",
    "master_key", "passcode", "passphrase", "passwd", "password", "private_key", "privatekey", "pwd", "secret", "secret_key",
    "secretkey", "secrets", "service_key", "session_key", "shared_key", "signing_key", "ssh_key", "storage_key", "token",
    "access_tokens", "api_keys", "api_tokens", "authtoken", "passwords", "apitoken", "wandb_key", "anthropic_key", "comet_key",
    "creds", "db_pass", "gcp_key", "hf_key", "kaggle_key", "login_pass", "openai_key", "password_hash", "smtp_pass", "user_pass",
)  # fmt: skip
"""A name is taken apart at capitals and signs; its last words count."""
QUALIFIERS: Final = (
    "dev", "development", "live", "local", "main", "new", "old", "plain", "prod", "production", "raw", "staging", "str", "string",
    "test", "text", "value",
)  # fmt: skip
"""Last words that say nothing of what the value is; so do numbers."""
HARMLESS: Final = (
    "bos_token", "cls_token", "context_token", "end_token", "eos_token", "image_token", "mask_token", "next_token", "oldpwd",
    "pad_token", "per_token", "prefix_token", "sep_token", "special_token", "start_token", "stop_token", "suffix_token",
    "unk_token", "video_token", "audio_token", "use_auth", "no_auth", "blank_token", "boundary_token", "class_token",
    "control_token", "delimiter_token", "eod_token", "eot_token", "first_token", "global_pool_token", "input_token", "last_token",
    "max_token", "min_token", "newline_token", "output_token", "padding_token", "prompt_token", "register_token", "response_token",
    "separator_token", "sos_token", "speaker_token", "trigger_token", "unknown_token", "vocab_token", "word_token",
)  # fmt: skip
"""Names of other things that end as a secret's does."""


class Shape(Record):
    """What a secret looks like in a text. Only a text that holds an anchor is searched, so that the rest costs next to nothing."""

    anchors: tuple[str, ...]
    pattern: str
    """Its group `keep`, if it has one, stays; the rest is hidden."""


_ASSIGNED: Final = (
    "(?:(?:api|access|secret|private)[_-]?key|client[_-]?secret|(?:api|auth|access|refresh|hf|github|gitlab)[_-]?token"
    "|passw(?:or)?d)"
)

_QUOTE: Final = r"(?:b?(?P<quote>[\"']))?"
_QUOTED: Final = r"(?:\\.|(?!(?P=quote))[^\\\n]){4,}"
"""What stands between quotes, to the end of it: a password may have spaces and signs."""

SHAPES: Final[dict[str, Shape]] = {
    "URL with user or password": Shape(("://",), r"(?P<keep>://)(?!git@)[^\s/\"'<>]+(?=@)"),
    "URL with a key in its query": Shape(
        ("token=", "key=", "sig=", "signature=", "password=", "secret=", "Signature=", "Credential="),
        r"(?i)(?P<keep>[?&](?:[a-z_-]{0,20}token|(?:api_?|access_?)?key|sig|signature|password|secret|x-amz-(?:signature|credential))=)"
        r"[^&\s\"'<>]+",
    ),
    "PEM private key": Shape(
        ("PRIVATE KEY",),
        r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----|\Z)",
    ),
    "assignment": Shape(
        ("key", "Key", "KEY", "_token", "-token", "Token", "TOKEN", "_secret", "Secret", "SECRET", "passw", "PASSW", "Passw"),
        rf"(?i)(?P<keep>{_ASSIGNED}[\"']?\s{{0,3}}(?:=|:(?!:))\s{{0,3}}{_QUOTE})"
        rf"(?!(?:None|null|True|False)\b|\*\*\*)(?(quote){_QUOTED}|[^\s\"',;(){{}}\[\]&]{{4,}})",
    ),
    "command-line option": Shape(
        ("--",),
        r"(?i)(?P<keep>(?<!-)--(?!-)[a-z-]{0,30}?(?:api-?key|access-?key|secret-?key|secret|token|password|passwd)[ =]"
        rf"{_QUOTE})(?!\d+\b|-|\*\*\*|[<\[])(?(quote){_QUOTED}|[^\s\"'<>\[\]]{{4,}})",
    ),
    "authorization header": Shape(
        ("uthorization", "earer "),
        r"(?i)(?P<keep>authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:[a-z]{1,20} )?|bearer )[A-Za-z0-9._~+/=-]{16,}",
    ),
    "JSON web token": Shape(("eyJ",), r"\beyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){2,4}"),
    "Neptune": Shape(("eyJhcGlf",), r"\beyJhcGlf[A-Za-z0-9+/_-]{20,}={0,2}"),
    "AWS key id": Shape(("AKIA", "ASIA", "ABIA", "ACCA"), r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    "AWS secret key": Shape(
        ("aws", "AWS"),
        r"(?i)(?P<keep>\baws.{0,20}?[\"'\s:=])(?![0-9a-f]{40}\b)[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
    ),
    "GitHub": Shape(
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"
    ),
    "GitLab": Shape(("glpat-", "gldt-", "glrt-", "glptt-", "glcbt-"), r"\bgl(?:pat|dt|rt|ptt|cbt)-[\w-]{16,}"),
    "Hugging Face": Shape(("hf_", "api_org_"), r"\b(?:hf_|api_org_)[A-Za-z0-9]{20,}"),
    "Weights & Biases": Shape(("wandb_v1_", "wandb login "), r"\bwandb_v1_\w{20,}|(?P<keep>wandb login )[0-9a-f]{40}\b"),
    "OpenAI, Anthropic": Shape(
        ("sk-",),
        r"\bsk-(?:(?=[a-z0-9_-]{0,60}[A-Z])(?=[A-Za-z_-]{0,60}[0-9])[A-Za-z0-9_-]{20,}|(?:or-v1-)?[0-9a-f]{32,})",
    ),
    "Google": Shape(
        ("AIza", "ya29.", "GOCSPX-"), r"\b(?:AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}|GOCSPX-[A-Za-z0-9_-]{20,})"
    ),
    "Azure": Shape(("AccountKey=", "SharedAccessKey="), r"(?P<keep>(?:AccountKey|SharedAccessKey)=)[A-Za-z0-9+/=]{20,}"),
    "Slack": Shape(
        ("xox", "hooks.slack.com"), r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|(?P<keep>hooks\.slack\.com/services/)[A-Za-z0-9/]+"
    ),
    "Discord": Shape(("/api/webhooks/",), r"(?P<keep>/api/webhooks/)\d+/[\w-]+"),
    "Telegram": Shape((":AA",), r"\b\d{8,10}:AA[A-Za-z0-9_-]{33}"),
    "Stripe": Shape(("_live_", "_test_"), r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{10,}"),
    "SendGrid": Shape(("SG.",), r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    "npm": Shape(("npm_",), r"\bnpm_[A-Za-z0-9]{36}"),
    "PyPI": Shape(("pypi-",), r"\bpypi-[A-Za-z0-9_-]{30,}"),
    "Docker Hub": Shape(("dckr_",), r"\bdckr_(?:pat|oat)_[A-Za-z0-9_-]{20,}"),
    "Databricks": Shape(("dapi",), r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    "DigitalOcean": Shape(("_v1_",), r"\bdo[opr]_v1_[0-9a-f]{64}"),
    "HashiCorp Vault": Shape(("hvs.", "hvb."), r"\bhv[sb]\.[A-Za-z0-9_-]{20,}"),
    "Replicate": Shape(("r8_",), r"\br8_[A-Za-z0-9]{30,}"),
    "age": Shape(("AGE-SECRET-KEY-",), r"\bAGE-SECRET-KEY-1[A-Z0-9]{50,}"),
}  # fmt: skip
"""By whose they are."""


class _List(Record):
    """The list as HEADRACE_SECRETS and `add` have made it."""

    variable: str
    names: tuple[str, ...]
    harmless: tuple[str, ...]
    anchors: tuple[tuple[str, str], ...]
    off: bool


_added: list[str] = []
_list: _List | None = None
_told: set[str] = set()


def add(*names: str, shapes: Mapping[str, str] | None = None) -> None:
    """Mask more in this process: what stands under these names, and what these regular expressions find in a text.

    Raises `InvalidValue` for what is no regular expression.

    >>> add("badge", shapes={"door code": r"DC-[0-9]{6}"})
    >>> masked_text("opened with DC-123456"), masked_value("property", "badge", "4711")
    ('opened with ***', '***')
    """
    global _list
    for title, pattern in (shapes or {}).items():
        try:
            re.compile(pattern)
        except re.error as error:  # refused here, and not at some print
            raise InvalidValue(f"the shape {title!r} is {pattern!r}, which is no regular expression: {error}") from None
        SHAPES[title] = Shape(("",), pattern)
    _added.extend(_normal(name) for name in names)
    _list = None


def masked_value(what: str, name: str, value: Any) -> Any:
    """`value`, plain as JSON has values, of the parameter or property `name`, without the secrets in it. Warns once of a name."""
    kept = masked(name, value)
    if kept is not value and kept != value and name not in _told:
        _told.add(name)
        warn(
            f"the {what} {name!r} looks like a secret, and is kept as {HIDDEN}: where it is none, give it another name, or set "
            f"{VARIABLE}={OFF}"
        )
    return kept


def masked(name: str, value: Any) -> Any:
    """As `masked_value`, and says nothing."""
    chosen = _chosen()
    return value if chosen.off else _masked(chosen, name, value, secret=False)


def masked_text(text: str) -> str:
    """`text` with every secret in it hidden that can be told by its shape."""
    chosen = _chosen()
    if chosen.off:
        return text
    for anchor, pattern in chosen.anchors:
        if anchor in text:
            text = re.sub(pattern, _hide, text)
    return text


class KeyLines:
    """Finds the lines of a PEM key that is printed over many: its first one is masked, the others are left out."""

    __slots__ = ("_inside",)
    _LINES_MAX = 200  # of a key of 16,384 bits; a beginning without an end must not hide the rest of a run

    def __init__(self) -> None:
        self._inside = 0

    def hide(self, line: str) -> bool:
        """Whether `line`, which follows those asked about before, is to be left out."""
        inside = self._inside
        if "PRIVATE KEY-----" in line:
            begins = line.rfind("-----BEGIN")
            self._inside = self._LINES_MAX if begins > line.rfind("-----END") and not _chosen().off else 0
            return inside > 0 and begins < 0
        self._inside = max(0, inside - 1)
        return inside > 0


def setting() -> str:
    """What was chosen, as a text: what was masked under another one may look different."""
    chosen = _chosen()
    return OFF if chosen.off else ",".join(chosen.names[len(NAMES) :])


def is_secret(name: str) -> bool:
    """Whether what is called so is masked.

    >>> [name for name in ("api_key", "dbPassword", "hf.token", "max_tokens", "pad_token", "key_dim") if is_secret(name)]
    ['api_key', 'dbPassword', 'hf.token']
    """
    return _is_secret(_chosen(), name)


def _is_secret(chosen: _List, name: str) -> bool:
    whole, normal = _normal(name, qualified=True), _normal(name)
    return (normal.endswith(chosen.names) or whole.endswith(chosen.names)) and not normal.endswith(chosen.harmless)


def _normal(name: str, *, qualified: bool = False) -> str:
    """A name as its words with '_' before each: `_db_password` of `dbPassword` and of `DB-Password.1`; `qualified` with the last
    ones, too, that say nothing."""
    parted = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)
    words = re.sub(r"[^a-z0-9]+", " ", parted.lower()).split()
    while not qualified and len(words) > 1 and (words[-1] in QUALIFIERS or words[-1].isdecimal()):
        words.pop()
    if words:
        words[-1] = words[-1].rstrip("0123456789") or words[-1]
    return "_" + "_".join(words)


def _chosen() -> _List:
    global _list
    variable = os.environ.get(VARIABLE, "")
    if _list is None or _list.variable != variable:
        given = [word.strip() for word in variable.split(",") if word.strip()]
        names = (*(_normal(one, qualified=True) for one in NAMES), *_added, *(_normal(word) for word in given))
        anchors = tuple((anchor, shape.pattern) for shape in SHAPES.values() for anchor in shape.anchors)
        _list = _List(variable, names, tuple(map(_normal, HARMLESS)), anchors, given == [OFF])
    return _list


def _masked(chosen: _List, name: str, value: Any, *, secret: bool) -> Any:
    secret = secret or _is_secret(chosen, name)
    if isinstance(value, dict):
        return {key: _masked(chosen, key, item, secret=secret) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(chosen, name, item, secret=secret) for item in value]
    if isinstance(value, str):
        if not secret:
            return masked_text(value)
        return value if not value or (value[0] in "<[" and value[-1] in ">]") else HIDDEN
    if secret and isinstance(value, int | float) and not isinstance(value, bool) and "pass" in name.lower():
        return HIDDEN
    return value


def _hide(match: re.Match[str]) -> str:
    return (match.groupdict().get("keep") or "") + HIDDEN
