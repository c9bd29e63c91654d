"""Access: certificates, users, roles; what is logged where they are wrong, and what never is."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.sources.remote import SourceError
from tests.netns.etcd.authority import Authority
from tests.netns.etcd.conftest import MakeSeat, Seat
from tests.netns.etcd.mute import web_server
from tests.netns.etcd.server import PASSWORD, PREFIX, Etcd
from tests.netns.routing.conftest import eventually

pytestmark = pytest.mark.xdist_group("etcd_access")


def secret(path: Path, text: str) -> str:
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


@pytest.fixture
def discreet(capfd: pytest.CaptureFixture[str], etcd: Etcd) -> Iterator[None]:
    """Neither the password nor a key is in what was logged."""
    yield
    logged = capfd.readouterr().err
    assert PASSWORD not in logged
    assert "PRIVATE KEY" not in logged
    assert not any(line in logged for line in etcd.client_files[1].read_text().split()[5:-4])


def refused(seat: Seat, words: str) -> None:
    """Its fault contains that, and no secret."""
    eventually(lambda: words in seat.fault or seat.fault)
    assert PASSWORD not in seat.fault
    assert seat.nodes() == {}


@pytest.mark.usefixtures("discreet")
def test_a_wrong_password(make_seat: MakeSeat, tmp_path: Path) -> None:
    wrong = secret(tmp_path / "wrong", f"{PASSWORD}!")
    seat = make_seat(passwordFile=wrong).start()
    refused(seat, "authentication failed")
    # Put right, it is read anew.
    Path(wrong).write_text(PASSWORD)
    seat.settle()


@pytest.mark.usefixtures("discreet")
def test_no_user_at_all(make_seat: MakeSeat) -> None:
    seat = make_seat(username="", passwordFile=None).start()
    refused(seat, "source.etcd needs username and passwordFile")


@pytest.mark.usefixtures("discreet")
def test_a_role_that_is_not_enough(make_seat: MakeSeat) -> None:
    refused(make_seat(prefix=f"{PREFIX}er").start(), "permission denied")


@pytest.mark.usefixtures("discreet")
def test_a_server_of_another_authority(make_seat: MakeSeat, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    seat = make_seat(caFile=str(other.certificate)).start()
    refused(seat, "certificate verify failed")
    refused(make_seat(caFile=None).start(), "certificate verify failed")


@pytest.mark.usefixtures("discreet")
def test_a_client_of_another_authority(make_seat: MakeSeat, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "other").issue("client")
    seat = make_seat(certFile=str(certificate), keyFile=str(key)).start()
    eventually(lambda: "SSL" in seat.fault or seat.fault)
    assert seat.nodes() == {}
    refused(make_seat(certFile=None, keyFile=None).start(), "SSL")


@pytest.mark.usefixtures("discreet")
def test_a_password_that_others_can_read(make_seat: MakeSeat, tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.write_text(PASSWORD)
    path.chmod(0o640)
    seat = make_seat(passwordFile=str(path))
    with pytest.raises(SourceError, match="has mode 0640: must be for root alone"):
        seat.client().check()
    refused(seat.start(), "has mode 0640")
    path.chmod(0o600)
    seat.settle()


@pytest.mark.usefixtures("discreet")
def test_a_key_that_others_can_read(make_seat: MakeSeat, etcd: Etcd, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    shutil.copy(etcd.client_files[1], key)
    key.chmod(0o644)
    seat = make_seat(keyFile=str(key)).start()
    refused(seat, f"source.etcd.keyFile {key} has mode 0644: must be for root alone")
    key.chmod(0o600)
    seat.settle()


def test_certificates_that_are_renewed_are_used(
    make_seat: MakeSeat, etcd: Etcd, tmp_path: Path
) -> None:
    certificate, key = (tmp_path / name for name in ("c.crt", "c.key"))
    wrong = Authority(tmp_path / "other").issue("client")
    for source, target in zip(wrong, (certificate, key), strict=True):
        shutil.copy(source, target)
        target.chmod(0o600)
    seat = make_seat(certFile=str(certificate), keyFile=str(key)).start()
    eventually(lambda: bool(seat.fault))
    for source, target in zip(etcd.client_files, (certificate, key), strict=True):
        shutil.copy(source, target)
        target.chmod(0o600)
    seat.settle()


def test_no_server_listens(make_seat: MakeSeat) -> None:
    seat = make_seat(endpoints=["https://192.0.2.1:1", "https://192.0.2.1:2"]).start()
    refused(seat, "https://192.0.2.1:1 cannot be reached: [Errno 111] Connection refused")
    refused(seat, "https://192.0.2.1:2 cannot be reached: [Errno 111] Connection refused")


def test_the_next_endpoint_is_used(make_seat: MakeSeat, etcd: Etcd) -> None:
    for endpoints in (["https://192.0.2.1:1", *etcd.urls], [*etcd.urls, "https://192.0.2.1:1"]):
        make_seat(endpoints=endpoints).start().settle()


def test_what_is_no_etcd(make_seat: MakeSeat, etcd: Etcd) -> None:
    server = etcd.ns.echo("tcp", "192.0.2.1")
    seat = make_seat(endpoints=[f"http://192.0.2.1:{server.listens[1]}"]).start()
    eventually(lambda: bool(seat.fault))
    assert seat.nodes() == {}


@pytest.mark.parametrize(
    ("status", "reason"), [(200, "HTTP 200"), (404, "HTTP 404"), (503, "HTTP 503")]
)
def test_a_web_server_is_no_etcd(make_seat: MakeSeat, etcd: Etcd, status: int, reason: str) -> None:
    with web_server(etcd, status) as url:
        seat = make_seat(endpoints=[url]).start()
        eventually(lambda: f"{url}: is no etcd: {reason}, '<html>" in seat.fault or seat.fault)
        assert len(seat.fault) < 200
        assert seat.nodes() == {}
        seat.stop()


def test_closing_ends_the_thread_that_waits(make_seat: MakeSeat) -> None:
    seat = make_seat().start()
    seat.settle()
    source = seat.source
    assert source is not None
    seat.stop()
    assert not source._thread.is_alive()
