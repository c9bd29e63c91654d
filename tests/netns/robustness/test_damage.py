"""A damaged or deleted database: the kernel knows who runs, and nobody's address is given twice."""

import os
from collections.abc import Callable

import pytest

from tests.netns.robustness.confs import MODES, netconf
from tests.netns.robustness.scene import DATA_DIR, DATABASE, Attached, Scene
from tests.pytest_netns import Namespace

MakePod = Callable[[], Namespace]
PAGE = 4096


def overwrite(offset: int, data: bytes) -> None:
    with DATABASE.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def delete_everything() -> None:
    for path in DATA_DIR.iterdir():
        path.unlink()


DAMAGES: dict[str, Callable[[], None]] = {
    "cut to nothing": lambda: os.truncate(DATABASE, 0),
    "cut in the header": lambda: os.truncate(DATABASE, 60),
    "cut after a page": lambda: os.truncate(DATABASE, PAGE),
    "cut in a page": lambda: os.truncate(DATABASE, 3 * PAGE + 77),
    "header overwritten": lambda: overwrite(0, b"\0" * 100),
    "pages overwritten": lambda: overwrite(PAGE, b"\xa5" * 40 * PAGE),
    "text instead": lambda: void(DATABASE.write_text("not a database\n" * 1000)),
}
DELETIONS: dict[str, Callable[[], None]] = {
    "database deleted": DATABASE.unlink,
    "everything deleted": delete_everything,
}


def void(_value: object) -> None:
    return None


VERBS = ("ADD", "DEL", "CHECK", "STATUS", "GC")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", DAMAGES | DELETIONS)
def test_next_call_rebuilds(scene: Scene, make_pod: MakePod, name: str, verb: str) -> None:
    mode = MODES[len(name) % 2]
    conf = netconf(mode, (4, 6), ipMasq=True)
    running = [scene.add(conf, make_pod(), f"old{number}") for number in range(3)]
    goes = scene.add(conf, make_pod(), "goes")
    addresses = addresses_of(running)
    scene.on_files((DAMAGES | DELETIONS)[name])

    fresh, said = call_after_damage(scene, verb, goes, running, make_pod)
    if name in DAMAGES:
        assert "/var/lib/podwire/podwire.db was damaged. It is kept as " in said
        kept = said.partition("It is kept as ")[2].partition(";")[0]
        assert scene.on_files(lambda: os.path.exists(kept)), kept
        assert "filled from the kernel" in said
    for attached in running:
        assert scene.check(attached).code == 0
        assert attached.pod.ping("10.77.0.1")
    fresh += [scene.add(conf, make_pod(), f"new{number}") for number in range(4)]
    assert not addresses & addresses_of(fresh)
    for attached in (*running, *fresh):
        scene.delete(attached)
    scene.delete(goes)
    assert scene.leftovers(*(a.pod for a in (*running, *fresh, goes))) == []


def call_after_damage(
    scene: Scene, verb: str, goes: Attached, running: list[Attached], make_pod: MakePod
) -> tuple[list[Attached], str]:
    """The first call; the attachment it made, if any, and what it said on standard error."""
    conf = goes.conf
    if verb == "ADD":
        pod = make_pod()
        answer = scene.call("ADD", conf, pod, "first")
        assert answer.code == 0, answer
        return [Attached(pod, "first", "eth0", conf, answer.json)], answer.stderr
    if verb == "DEL":
        answer = scene.call("DEL", conf, goes.pod, "goes")
    elif verb == "CHECK":
        answer = scene.check(running[0])
    elif verb == "GC":
        answer = scene.gc(conf, [(a.container_id, a.ifname) for a in (*running, goes)])
    else:
        answer = scene.call("STATUS", conf)
    assert answer.code == 0, answer
    return [], answer.stderr


def addresses_of(attached: list[Attached]) -> set[str]:
    return {address for a in attached for address in (a.address(4), a.address(6))}


@pytest.mark.parametrize("mode", MODES)
def test_any_single_page(scene: Scene, make_pod: MakePod, mode: str) -> None:
    """Whichever page is lost: every call says what is wrong or does what it should."""
    conf = netconf(mode, (4,), ipMasq=True)
    running = [scene.add(conf, make_pod(), f"old{number}") for number in range(2)]
    pod, addresses = make_pod(), {a.address(4) for a in running}
    pages = scene.on_files(lambda: DATABASE.stat().st_size) // PAGE
    assert pages >= 8
    for page in range(pages):
        scene.on_files(lambda page=page: overwrite(page * PAGE, os.urandom(PAGE)))  # type: ignore[misc]
        attached = scene.add(conf, pod)
        assert attached.address(4) not in addresses, f"page {page}"
        assert all(scene.check(a).code == 0 for a in running), f"page {page}"
        scene.delete(attached)
        assert scene.links(pod) == {"lo"}
    for attached in running:
        scene.delete(attached)
    assert scene.leftovers(pod) == []


def test_many_find_the_damage_at_once(scene: Scene, make_pod: MakePod) -> None:
    conf = netconf("ptp", (4, 6))
    running = scene.add(conf, make_pod(), "old")
    scene.on_files(DAMAGES["header overwritten"])
    pods = {f"c{number}": make_pod() for number in range(16)}
    calls = {name: scene.start("ADD", conf, pod, name) for name, pod in pods.items()}
    answers = [call.result() for call in calls.values()]
    assert [a for a in answers if a.code] == []
    addresses = [address for a in answers for address in a.addresses]
    assert len(set(addresses)) == 32
    assert running.cidr(4) not in addresses
    assert sum("was damaged" in a.stderr for a in answers) == 1, "one of them says so"
    kept = scene.on_files(lambda: list(DATA_DIR.glob("*.damaged-*")))
    assert kept


def test_database_of_something_else(scene: Scene, pod: Namespace) -> None:
    """A file that is sound and not podwire's is nobody's to replace."""
    import sqlite3

    def make() -> None:
        DATA_DIR.mkdir()
        with sqlite3.connect(DATABASE) as connection:
            connection.execute("CREATE TABLE precious (value)")
        connection.close()

    scene.on_files(make)
    before = scene.on_files(DATABASE.read_bytes)
    error = scene.call("ADD", netconf("ptp"), pod).json
    assert error["code"] == 5
    assert "is not podwire's database" in error["msg"]
    assert scene.on_files(DATABASE.read_bytes) == before
    assert scene.links(pod) == {"lo"}
