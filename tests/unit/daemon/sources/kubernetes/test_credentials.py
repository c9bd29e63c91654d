"""Certificates and tokens, of files and of a kubeconfig's own data."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
from pathlib import Path

import httpx2
import pytest

from daemon.sources.kubernetes.credentials import Cluster, User, make_context, read_token
from daemon.sources.remote import SourceError
from tests.cluster.authority import Authority, make_authority

SERVER = "https://localhost"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the node's own certificate and key."""
    folder = tmp_path_factory.mktemp("node")
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=node-1 -keyout key -out crt"
    subprocess.run(["openssl", *words.split()], cwd=folder, check=True, capture_output=True)
    return folder


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def shake_hands(client: ssl.SSLContext, authority: Authority, node: Path | None = None) -> str:
    """Whom the API server sees; it asks for a certificate if it knows the node's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.certificate, authority.key)
    if node:
        server.load_verify_locations(node / "crt")
        server.verify_mode = ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname="localhost")
    theirs = server.wrap_bio(up, down, server_side=True)
    for _ in range(3):
        for end in (ours, theirs):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    found = theirs.getpeercert() or {}
    subject: object = found.get("subject", "")
    return str(subject)


def test_the_authority_is_a_file_or_data(authority: Authority, tmp_path: Path) -> None:
    commented = tmp_path / "ca.crt"
    commented.write_text(f"# Zertifizierungsstelle für Tests\n{authority.ca.read_text()}")
    for cluster in (
        Cluster(SERVER, ca_file=str(authority.ca)),
        Cluster(SERVER, ca_data=data(authority.ca)),
        Cluster(SERVER, ca_data=data(commented)),
        Cluster(SERVER, insecure=True),
    ):
        assert shake_hands(make_context(cluster, User()), authority) == ""
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(make_context(Cluster(SERVER), User()), authority)


@pytest.mark.parametrize("is_data", [False, True])
def test_the_nodes_certificate_is_files_or_data(
    authority: Authority, node: Path, is_data: bool
) -> None:
    crt, key = node / "crt", node / "key"
    user = User(certificate_file=str(crt), key_file=str(key))
    if is_data:
        user = User(certificate_data=data(crt), key_data=data(key))
    before = os.listdir("/proc/self/fd")
    context = make_context(Cluster(SERVER, ca_file=str(authority.ca)), user)
    assert os.listdir("/proc/self/fd") == before
    assert "node-1" in shake_hands(context, authority, node)


@pytest.mark.parametrize(
    "cluster", [Cluster(SERVER, ca_data="YQ=="), Cluster(SERVER, ca_data="!"), Cluster("x", "/no")]
)
def test_what_is_no_certificate_is_named(cluster: Cluster) -> None:
    with pytest.raises(SourceError, match="its certificates: "):
        make_context(cluster, User())


def test_a_token_file_is_read_again_where_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    auth = User(token_file=str(file)).auth
    assert auth is not None

    def send(*codes: int) -> list[str]:
        request, sent = httpx2.Request("GET", SERVER), []
        flow = auth.sync_auth_flow(request)
        next(flow)
        for code in codes:
            sent.append(request.headers["Authorization"])
            try:
                flow.send(httpx2.Response(code, request=request))
            except StopIteration:
                break
        return sent

    assert send(200) == ["Bearer one"]
    file.write_text("two")
    assert send(200) == ["Bearer one"]
    assert send(401, 200) == ["Bearer one", "Bearer two"]
    assert send(401, 401, 401) == ["Bearer two"]  # which is refused already
    file.unlink()
    with pytest.raises(SourceError, match=r"the token file /.*/token cannot be read: No such file"):
        send(401, 200)


def test_a_token_that_is_no_text_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_bytes(b"\xffsecret")
    with pytest.raises(SourceError, match="it is no text") as caught:
        read_token(file)
    assert "secret" not in str(caught.value)


def test_a_token_comes_before_a_password() -> None:
    assert User().auth is None
    assert User(username="node").auth is None
    for user, scheme in (
        (User("a", "", "b", "c"), "Bearer"),
        (User("", "", "b", "c"), "Basic"),
    ):
        request = httpx2.Request("GET", SERVER)
        assert user.auth is not None
        next(user.auth.sync_auth_flow(request))
        assert request.headers["Authorization"].startswith(scheme)


def test_secrets_stay_out_of_messages() -> None:
    user = User(username="me", **dict.fromkeys(("token", "password", "key_data"), "s3cret"))
    assert "me" in repr(user)
    assert "s3cret" not in repr(user)
