"""Files that cannot be written stop no route, and are told: in the log, and in the status later."""

from functools import partial

from tests.netns.routing.conftest import Cluster, Member, eventually

PREFIX = "10.244.2.0/24"


def is_logged(member: Member, text: str) -> object:
    return text in member.log or member.log


def fill(member: Member, new: str, last: str) -> None:
    """Fill a file system by a new file, and the last page of another one."""
    for path, size in ((new, "4k"), (last, "1")):
        argv = ["dd", "if=/dev/zero", f"of={path}", f"bs={size}", "oflag=append", "conv=notrunc"]
        member.node.run(argv, check=False)


def test_a_full_disk_is_told(cluster: Cluster) -> None:
    one, two = cluster.join(start=False), cluster.join(start=False)
    one.node.run(["mkdir", "/run/podwire"])
    one.node.run(["mount", "-t", "tmpfs", "-o", "size=1m", "podwire-test", "/run/podwire"])
    one.start(journal={"path": "/run/podwire/journal.jsonl"})
    eventually(partial(one.has_routes, set(two.cidrs)))
    eventually(one.is_in_sync)
    fill(one, "/run/podwire/much", "/run/podwire/journal.jsonl")
    one.node.run(["ip", "route", "del", PREFIX])
    eventually(lambda: one.has_route(PREFIX))
    no_space = "cannot be written: {}No space left on device"
    told = "the status /run/podwire/status.json " + no_space.format("")
    eventually(partial(is_logged, one, f"{told}; free some space there, or set `statusFile`"))
    journal = "the journal " + no_space.format("/run/podwire/journal.jsonl: ")
    eventually(partial(is_logged, one, journal))
    assert one.log.count(journal) == 1
    assert one.log.count(told) == 1
    one.node.run(["rm", "/run/podwire/much"])
    one.node.run(["ip", "route", "del", PREFIX])
    eventually(lambda: one.has_route(PREFIX))
    eventually(lambda: one.status().get("lastErrorOver", 0) > 0 or one.status())
    assert "No space left on device" in one.status()["lastError"]


def test_a_journal_that_can_be_written_again_is_no_fault_though_nothing_happens(
    cluster: Cluster,
) -> None:
    one, two = cluster.join(start=False), cluster.join(start=False)
    one.node.run(["mkdir", "/run/journal"])
    one.node.run(["mount", "-t", "tmpfs", "-o", "size=64k", "podwire-test", "/run/journal"])
    one.start(journal={"path": "/run/journal/journal.jsonl"}, health=False)
    eventually(partial(one.has_routes, set(two.cidrs)))
    eventually(one.is_in_sync)
    fill(one, "/run/journal/much", "/run/journal/journal.jsonl")
    one.node.run(["ip", "route", "del", PREFIX])
    eventually(lambda: "No space left" in one.fault("journal") or one.status())
    one.node.run(["rm", "/run/journal/much"])
    eventually(one.is_in_sync)


def test_a_conflist_that_cannot_be_written_is_told_in_words(cluster: Cluster) -> None:
    one = cluster.join(start=False)
    one.node.run(["mkdir", "/run/conf"])
    one.node.run(["mount", "-t", "tmpfs", "-o", "ro", "podwire-test", "/run/conf"])
    path = "/run/conf/05-podwire.conflist"
    one.start(conflist={"path": path})
    told = (
        f"the CNI configuration {path} cannot be written: Read-only file system; "
        "remount it writable, or set `conflist.path` in podwired.yaml"
    )
    eventually(partial(is_logged, one, told))
    eventually(lambda: told in one.status()["faults"].get("conflist", "") or one.status())
    one.node.run(["mount", "-o", "remount,rw", "/run/conf"])
    eventually(one.is_in_sync)
    assert "podwire" in one.node.run(["cat", path]).stdout


def test_a_conflist_that_others_remove_or_change_is_restored(cluster: Cluster) -> None:
    one = cluster.join()
    eventually(one.is_in_sync)
    content, name = one.conflist.read_text(), f"file {one.conflist}"

    def actions() -> list[tuple[str, str]]:
        return [(r["action"], r["cause"]) for r in one.history() if r["object"] == name]

    expected = [("added", "this node is ready")]
    assert actions() == expected
    one.conflist.unlink()
    expected.append(("restored", "removed"))
    eventually(lambda: actions() == expected or actions())
    one.conflist.write_text(content.replace("1.0.0", "0.4.0"))
    expected.append(("restored", "changed by others"))
    eventually(lambda: actions() == expected or actions())
    assert one.conflist.read_text() == content
