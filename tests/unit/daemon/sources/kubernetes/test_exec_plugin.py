"""A program that gives out tokens: how it is started, what it answers, when it is asked again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from daemon.sources.kubernetes.credentials import BearerAuth
from daemon.sources.kubernetes.exec_plugin import ExecTokens, parse_exec
from daemon.sources.remote import SourceError

V1 = "client.authentication.k8s.io/v1"
CLUSTER = {"server": "https://192.0.2.1", "certificate-authority": "/ca", "proxy-url": "http://p"}
GIVEN = {"token": "abc"}


def make_plugin(folder: Path, script: str, **section: Any) -> BearerAuth:
    """One that is in a folder beside the kubeconfig."""
    path = folder / "bin/plugin"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\ncd {folder}\n{script}\n")
    path.chmod(0o755)
    made = {"apiVersion": V1, "command": "./bin/plugin", "interactiveMode": "IfAvailable"}
    return BearerAuth(ExecTokens(parse_exec({**made, **section}, folder), CLUSTER).get)


def answer(status: dict[str, str], version: str = V1) -> str:
    """A script that gives this out, and counts its runs."""
    made = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    return f"echo run >> runs; cat <<'END'\n{json.dumps(made)}\nEND\n"


def send(auth: BearerAuth, *codes: int) -> list[str]:
    """The tokens of one request, which the API answers with these codes."""
    request = httpx2.Request("GET", "https://192.0.2.1")
    flow = auth.sync_auth_flow(request)
    next(flow)
    tokens = [request.headers["Authorization"]]
    for code in codes:
        try:
            flow.send(httpx2.Response(code))
        except StopIteration:
            break
        tokens.append(request.headers["Authorization"])
    return tokens


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().split())


@pytest.mark.parametrize("version", [V1, "client.authentication.k8s.io/v1beta1"])
def test_the_token_is_used_until_it_is_refused(tmp_path: Path, version: str) -> None:
    auth = make_plugin(tmp_path, answer(GIVEN, version), apiVersion=version)
    assert send(auth, 200) == send(auth, 404) == ["Bearer abc"]
    assert runs(tmp_path) == 1
    assert send(auth, 401, 401) == ["Bearer abc"]  # the plugin has no other one
    assert runs(tmp_path) == 2


@pytest.mark.parametrize(("year", "count"), [(2020, 2), (2999, 1)])
def test_a_token_that_expired_is_asked_for_again(tmp_path: Path, year: int, count: int) -> None:
    end = {"expirationTimestamp": f"{year}-01-01T00:00:00Z"}
    auth = make_plugin(tmp_path, answer({**GIVEN, **end}))
    send(auth, 200)
    send(auth, 200)
    assert runs(tmp_path) == count


@pytest.mark.parametrize("is_wanted", [False, True])
def test_arguments_environment_and_the_cluster_are_passed(tmp_path: Path, is_wanted: bool) -> None:
    script = 'echo "$1 $REGION" > given; echo "$KUBERNETES_EXEC_INFO" > info; '
    auth = make_plugin(
        tmp_path,
        script + answer(GIVEN),
        args=["get-token"],
        env=[{"name": "REGION", "value": "eu"}],
        provideClusterInfo=is_wanted,
    )
    send(auth, 200)
    assert (tmp_path / "given").read_text() == "get-token eu\n"
    spec: dict[str, Any] = {"interactive": False}
    if is_wanted:
        spec["cluster"] = {"server": "https://192.0.2.1", "proxy-url": "http://p"}
    info = {"apiVersion": V1, "kind": "ExecCredential", "spec": spec}
    assert json.loads((tmp_path / "info").read_text()) == info


@pytest.mark.parametrize(
    ("section", "why"),
    [
        (5, "is no mapping"),
        ({}, "has apiVersion None: must be client.authentication.k8s.io/v1 or"),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "v1alpha1': must be"),
        ({"apiVersion": V1}, "has no `command`"),
        ({"apiVersion": V1, "command": "sh", "interactiveMode": "Always"}, "no terminal"),
        (
            {"apiVersion": V1, "command": "aws-iam", "installHint": "install it"},
            "has a command that is not found: aws-iam; install it",
        ),
        ({"apiVersion": V1, "command": "bin/x"}, "not found: /folder/bin/x"),
        ({"apiVersion": V1, "command": "sh", "env": ["A=b"]}, "`args` or `env`"),
        ({"apiVersion": V1, "command": "sh", "args": 5}, "`args` or `env`"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(section: Any, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_exec(section, Path("/folder"))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no >&2; exit 7", "bin/plugin ends with 7: no"),
        ("echo hello", "gives no ExecCredential"),
        ("echo '{}'", "gives no ExecCredential"),
        (answer({}), "gives no token: podwire needs a token"),
        (answer({"token": "a\nb"}), "gives no token"),
        (answer({"clientCertificateData": "x"}), "gives a client certificate"),
        (answer({**GIVEN, "expirationTimestamp": "soon"}), "gives no ExecCredential"),
        (answer(GIVEN, "v1"), "answers with another version"),
    ],
)
def test_an_answer_that_is_no_token_is_named(tmp_path: Path, script: str, why: str) -> None:
    with pytest.raises(SourceError, match=re.escape(why)):
        send(make_plugin(tmp_path, script))
