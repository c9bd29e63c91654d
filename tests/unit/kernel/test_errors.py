"""What the kernel layer raises, and that it says what it was about."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.errors import KernelError, NotANamespace
from kernel.model import Sysctl
from kernel.netns import open_namespace
from kernel.sysctl import apply_sysctl, read_sysctl


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KernelError("create link", "eth0"), "could not create link eth0"),
        (KernelError("add route", ""), "could not add route"),
        (
            KernelError("create link", "eth0", errno.EEXIST, "in /run/netns/a"),
            "could not create link eth0: File exists (EEXIST) - in /run/netns/a",
        ),
        (KernelError("load", "rules", 5000), "could not load rules: Unknown error 5000 (5000)"),
    ],
)
def test_an_error_says_operation_object_and_reason(error: KernelError, text: str) -> None:
    assert str(error) == text


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


MAKERS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "file": Path.touch,
    "folder": Path.mkdir,
    "fifo": os.mkfifo,  # opening one must not wait for a writer
    "socket": socket_at,
    "device": lambda path: path.symlink_to("/dev/null"),
    "loop": lambda path: path.symlink_to(path),
    "another kind of namespace": lambda path: path.symlink_to("/proc/self/ns/uts"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_no_network_namespace_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ns"
    MAKERS[kind](path)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(NotANamespace, match="open network namespace") as caught:
        open_namespace(str(path))
    assert caught.value.target == str(path)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_path_that_no_file_can_have_is_refused() -> None:
    for path in ("/run/netns/a\0b", "/" + "x" * 5000, "/\ud800"):
        with pytest.raises(NotANamespace):
            open_namespace(path)


def test_the_own_namespace_is_known() -> None:
    with open_namespace("/proc/thread-self/ns/net") as namespace:
        assert namespace.is_current()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(namespace.fd)


def test_settings_that_the_kernel_lacks() -> None:
    missing = Sysctl("net/podwire/no_such_setting", "1")
    assert read_sysctl(missing.path) is None
    with pytest.raises(KernelError, match=r"net.podwire.no_such_setting=1: .* has no such setting"):
        apply_sysctl(missing)
    optional = Sysctl(missing.path, missing.value, required=False)
    apply_sysctl(optional)
    assert read_sysctl(optional.path) is None


def test_a_setting_that_is_right_is_not_written() -> None:
    """kernel/random/boot_id is read-only: a write would raise."""
    path = "kernel/random/boot_id"
    value = read_sysctl(path)
    assert value
    apply_sysctl(Sysctl(path, value))
    assert read_sysctl(path) == value
    with pytest.raises(KernelError, match="boot_id"):
        apply_sysctl(Sysctl(path, "another"))
