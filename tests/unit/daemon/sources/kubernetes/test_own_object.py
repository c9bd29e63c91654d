"""What a node makes of what the API says of its own object."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from daemon.config import SUCCESSION
from daemon.log import Log
from daemon.sources.cache import Keeper
from daemon.sources.kubernetes.api import Api, ApiError
from daemon.sources.kubernetes.chain import LENGTH, parse_token, steps
from daemon.sources.kubernetes.cluster_view import Own, Picture
from daemon.sources.kubernetes.objects import read_succession
from daemon.sources.kubernetes.own_object import Presence
from daemon.sources.kubernetes.succession import Succession
from daemon.sources.remote import Feed, SourceError
from tests.cluster.follower import Notes

RANGES = (ip_network("10.244.0.0/16"),)
EVIL = ["198.51.100.66"]
Thing = dict[str, Any]


def node(number: int) -> Thing:
    return {
        "metadata": {"name": "me", "uid": "u-1"},
        "spec": {"podCIDRs": ["10.244.9.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": f"192.0.2.{number}"}]},
    }


class Server(Api):
    """What is asked of it, answered from memory: the Node, and one object."""

    def __init__(self) -> None:
        self.node, self.foreign = node(9), dict[str, Any]()
        self.object: Thing | None = None
        self.life = self.deleted = self.refused = 0
        self.is_old = self.is_cut_off = False

    def get(self, path: str, query: object = None) -> Any:
        assert path == "/api/v1/nodes/me"
        return self.node

    def apply(self, path: str, thing: Any, manager: str) -> Any:
        if self.is_old and "succession" in thing["spec"]:
            self.refused += 1
            raise ApiError(400, "", ".spec.succession: field not declared in schema", path)
        if self.object is None:
            self.life, self.foreign = self.life + 1, {}
        generation = self.object["metadata"]["generation"] if self.object else 0
        changed = not self.object or self.object["spec"] != thing["spec"]
        version = {"uid": f"o-{self.life}", "generation": generation + changed}
        self.object = {**thing, "metadata": {**thing["metadata"], **version, **self.foreign}}
        if self.is_cut_off:
            raise SourceError("the answer did not come")
        return self.object

    def delete(self, path: str) -> None:
        self.object, self.deleted = None, self.deleted + 1


class Mine:
    """A node's presence, published once."""

    def __init__(self, folder: Path) -> None:
        self.keeper = Keeper(folder / "cluster.json", Log(), gap=3600, position_gap=3600)
        self.feed, self.log, self.server = Feed(self.keeper, "here"), Notes(), Server()
        self.secret = folder / SUCCESSION
        self.picture = Picture("me", RANGES, self.feed, self.log, lambda _: None)
        self.presence = self.begin()
        self.presence.hear(Own(None, is_listed=True))
        self.publish()

    def begin(self) -> Presence:
        """Another daemon, that has read its Node."""
        succession = Succession(self.secret, "me", self.log)
        words = self.picture, succession, self.log, self.feed.trouble
        self.presence = Presence("me", "podwire", RANGES, *words)
        assert self.presence.read(self.server)
        return self.presence

    def publish(self) -> None:
        assert self.presence.must_publish
        self.presence.publish(self.server)
        assert self.presence.is_published

    def move(self, number: int) -> None:
        """Other addresses, published."""
        self.server.node = node(number)
        assert self.presence.read(self.server)
        self.publish()

    @property
    def thing(self) -> Thing:
        """The object."""
        assert self.server.object is not None
        return self.server.object

    @property
    def token(self) -> bytes:
        found = parse_token(read_succession(self.thing))
        assert found is not None
        return found


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Mine]:
    made = Mine(tmp_path)
    yield made
    made.keeper.close()
    made.feed.close()


def changed(thing: Thing, generation: int, life: str, **spec: object) -> Thing:
    metadata = {**thing["metadata"], "generation": generation, "uid": life}
    return {**thing, "metadata": metadata, "spec": {**thing["spec"], **spec}}


def test_what_was_said_before_the_last_change_changes_nothing(mine: Mine) -> None:
    before = mine.thing
    mine.move(10)
    mine.presence.hear(Own(before))
    assert mine.presence.is_published
    assert mine.log.text.count("somebody else") == 0


def test_another_object_of_the_name_is_no_older_one(mine: Mine) -> None:
    """Made anew in a gap: it counts from one."""
    mine.move(10)
    before = mine.token
    mine.presence.hear(Own(changed(mine.thing, 1, "o-2", addresses=EVIL), is_listed=True))
    mine.publish()
    assert steps(before, mine.token) == 1


@pytest.mark.parametrize("is_told", [True, False])
@pytest.mark.parametrize("addresses", [["192.0.2.9"], EVIL])
def test_what_was_restored_is_put_right_by_another_chain(
    mine: Mine, is_told: bool, addresses: list[str]
) -> None:
    for number in (10, 11, 12):
        mine.move(number)
    before, old = mine.token, changed(mine.thing, 2, "o-1", addresses=addresses)
    mine.presence.hear(Own(old, is_listed=True, is_restored=is_told))
    mine.publish()
    assert steps(before, mine.token, LENGTH) is None
    assert "restored from a backup" in mine.log.text
    assert "somebody else" not in mine.log.text
    after = mine.token
    mine.presence.hear(Own(mine.thing, is_listed=True))
    mine.move(13)
    assert steps(after, mine.token) == 1


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_node_of_a_backup_begins_another_chain(mine: Mine, is_listed: bool) -> None:
    """Others have seen the tokens that it would give out next."""
    kept = mine.secret.read_bytes()
    for number in (10, 11, 12):
        mine.move(number)
    last, seen = mine.token, mine.thing
    mine.secret.write_bytes(kept)
    mine.begin()
    assert not mine.presence.assume(None)
    mine.presence.hear(Own(seen, is_listed=is_listed))
    mine.publish()
    assert steps(last, mine.token, LENGTH) is None
    assert "is of a backup" in mine.log.text
    assert mine.begin().assume(None) is False


def test_who_hears_too_late_that_it_is_of_a_backup_begins_another_chain(mine: Mine) -> None:
    kept = mine.secret.read_bytes()
    for number in (10, 11, 12):
        mine.move(number)
    seen = mine.thing
    mine.secret.write_bytes(kept)
    mine.begin().hear(Own(None))
    mine.publish()
    last = mine.token
    mine.presence.hear(Own(changed(seen, 1, "o-1")))
    mine.publish()
    assert steps(last, mine.token, LENGTH) is None


def test_where_no_token_can_be_kept_none_is_published(mine: Mine) -> None:
    mine.secret.unlink()
    mine.secret.mkdir()
    (mine.secret / "full").touch()
    mine.begin().hear(Own(mine.thing, is_listed=True))
    mine.publish()
    assert read_succession(mine.thing) is None
    (mine.secret / "full").unlink()
    mine.secret.rmdir()
    mine.move(11)
    assert mine.token


def test_what_may_be_there_is_written_over_with_the_same_token(mine: Mine) -> None:
    before = mine.thing
    mine.presence.hear(Own(None, is_readable=False))
    mine.publish()
    assert mine.thing == before
    assert "somebody else" not in mine.log.text


def test_what_stays_whatever_is_written_goes_with_the_object(mine: Mine) -> None:
    [owner] = mine.thing["metadata"]["ownerReferences"]
    mine.server.foreign = {"ownerReferences": [owner, {**owner, "uid": "another"}]}
    mine.presence.hear(Own({**mine.thing, "metadata": mine.server.foreign}))
    assert mine.presence.must_publish
    with pytest.raises(SourceError, match="is deleted and written again"):
        mine.presence.publish(mine.server)
    assert mine.server.deleted == 1
    mine.publish()
    assert mine.thing["metadata"]["ownerReferences"] == [owner]


@pytest.mark.parametrize("how", ["listed", "planted", "later"])
def test_tokens_begin_as_soon_as_they_can(mine: Mine, how: str) -> None:
    mine.server.is_old, mine.server.object = True, None
    mine.begin().hear(Own(None, is_listed=True))
    mine.publish()
    assert read_succession(mine.thing) is None
    for _ in range(3):
        mine.presence.hear(Own(mine.thing))
        assert not mine.presence.must_publish
    mine.presence.hear(Own(mine.thing, is_listed=True))
    mine.publish()
    assert mine.server.refused == 2
    assert mine.log.text.count("an older one") == 1
    mine.server.is_old = False
    planted = {**mine.thing, "spec": {**mine.thing["spec"], "succession": "A" * 22}}
    if how == "later":
        assert mine.presence.read(mine.server)
    else:
        is_listed = how == "listed"
        mine.presence.hear(Own(mine.thing if is_listed else planted, is_listed=is_listed))
    mine.publish()
    assert mine.token


def test_an_answer_that_did_not_come_troubles_nobody_once_the_object_is_there(mine: Mine) -> None:
    mine.server.node, mine.server.is_cut_off = node(10), True
    assert mine.presence.read(mine.server)
    with pytest.raises(SourceError):
        mine.presence.publish(mine.server)
    assert "not published: the answer did not come" in mine.feed.fault
    mine.presence.hear(Own(mine.thing))
    assert mine.presence.is_published
    assert "not published" not in mine.feed.fault
