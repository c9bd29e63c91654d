"""Secrets are removed from texts; pure.

Nothing that is collected should hold one: files of credentials and environments are left out. Logs
and configurations may all the same.
"""

from __future__ import annotations

import re

MARK = "[removed]"
_NAME = (
    r"(?:passw(?:or)?d|passphrase|secret|token|credential|api[-_]?key|private[-_]?key|bearer"
    r"|authorization|client-key-data|client-certificate-data|certificate-authority-data)"
)
# In YAML, JSON, and as key=value. Runs are bounded: a text may be one long word.
_KEYED = re.compile(
    rf"""(?P<key>{_NAME}(?P<rest>[\w.-]{{0,40}})["']?[ \t]{{0,8}}[:=][ \t]{{0,8}})"""
    r"""(?P<value>"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?"""
    # A plain value of YAML has these characters, too.
    r"""|[^\s,}\]|>](?:[^\n,}\]]|,(?![\s"'])|[}\]](?=[^\s,}\]]))*)""",
    re.IGNORECASE,
)
_NAMES_FILE = re.compile(r"(?:file|path|dir)\Z", re.IGNORECASE)
# A value of YAML goes on, or begins, in lines that are indented further.
_BLOCK = re.compile(
    rf"^(?P<indent>[ ]*)(?P<key>[\w.-]*{_NAME}[\w.-]*[ ]*:)[ ]*(?:[|>][^\n]*)?\n"
    r"(?:(?P=indent)[ ]+[^\n]*(?:\n|\Z)|\n)+",
    re.IGNORECASE | re.MULTILINE,
)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{1,40}-----.*?(?:-----END [A-Z0-9 ]{1,40}-----|\Z)", re.DOTALL
)
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]*(?:\.[\w-]*)?")
_SCHEME = re.compile(r"\b(bearer|basic)[ \t]{1,8}[\w.~+/=-]{6,}", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)[^\s/@]{1,200}@")
_BLOB = re.compile(r"(?<![\w+/=])[A-Za-z0-9+/]{120,}={0,2}")


def redact(text: str) -> str:
    """The text without what may be a secret. Names of files stay: they say what is configured."""
    text = _PEM.sub(MARK, text)
    text = _BLOCK.sub(lambda found: f"{found['indent']}{found['key']} {MARK}\n", text)
    text = _SCHEME.sub(lambda found: f"{found[1]} {MARK}", text)
    text = _KEYED.sub(_without_value, text)
    text = _JWT.sub(MARK, text)
    text = _USERINFO.sub(f"{MARK}@", text)
    return _BLOB.sub(MARK, text)


def _without_value(found: re.Match[str]) -> str:
    return found[0] if _NAMES_FILE.search(found["rest"]) else f"{found['key']}{MARK}"
