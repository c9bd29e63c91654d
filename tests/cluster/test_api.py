"""What both kinds of API server do alike: the stand-in stands in only as far as this holds."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path

import pytest

from tests.cluster.apiserver import KUBEADM, SPACE, SYSTEM, ApiServer, network
from tests.cluster.follower import eventually
from tests.cluster.rest import APPLY, MERGE, Object, Refused, place_of
from tests.cluster.wire import Wire

LISTED = place_of("NodeNetwork", SPACE)
ONE = ("n1", ["10.244.1.0/24"], ["192.0.2.11"])
OTHER = ["10.244.99.0/24"]


def version(made: Object) -> str:
    return str(made["metadata"]["resourceVersion"])


def owned(api: ApiServer) -> Object:
    """An object with its Node as the owner."""
    node = api.add_node(*ONE)
    made = network(*ONE)
    uid = node["metadata"]["uid"]
    reference = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid}
    made["metadata"]["ownerReferences"] = [reference]
    return made


def test_apply_creates_changes_nothing_twice_and_keeps_the_owner(api: ApiServer) -> None:
    made = owned(api)
    first = api.admin.apply(made, "podwired", force=False)
    assert first.code == 201
    assert first.body["spec"] == made["spec"]
    assert first.body["metadata"]["ownerReferences"] == made["metadata"]["ownerReferences"]
    again = api.admin.apply(made, "podwired", force=False)
    assert (again.code, version(again.body)) == (200, version(first.body))
    [entry] = again.body["metadata"]["managedFields"]
    assert (entry["manager"], entry["operation"]) == ("podwired", "Apply")
    assert entry["fieldsV1"]["f:spec"] == {"f:addresses": {}, "f:podCIDRs": {}}


def test_apply_of_what_the_definition_does_not_have_is_refused(api: ApiServer) -> None:
    made = network(*ONE)
    made["spec"]["unheard"] = "of"
    refused = api.admin.apply(made, "podwired")
    assert refused.code == 500
    assert ".spec.unheard: field not declared in schema" in refused.body["message"]
    assert api.network("n1") is None


def test_only_changes_of_the_spec_count(api: ApiServer) -> None:
    """And nobody but the server counts them."""
    kind = place_of("NodeNetwork", SPACE, "n1")
    made = api.put_network(*ONE)
    assert made["metadata"]["generation"] == 1
    for patch, generation in (
        ({"metadata": {"labels": {"a": "b"}}}, 1),
        ({"metadata": {"generation": 7, "uid": made["metadata"]["uid"]}}, 1),
        ({"spec": {"addresses": ["192.0.2.12"]}}, 2),
        ({"spec": {"addresses": ["192.0.2.12"]}}, 2),
        ({"metadata": {"generation": 1}, "spec": {"addresses": ["192.0.2.11"]}}, 3),
    ):
        found = api.admin.ask("PATCH", kind, patch, kind=MERGE).expect(200)
        assert found["metadata"]["generation"] == generation, patch
    api.remove("NodeNetwork", "n1", SPACE)
    again = api.put_network(*ONE)
    assert again["metadata"]["generation"] == 1
    assert again["metadata"]["uid"] != made["metadata"]["uid"]


def test_apply_of_another_manager_conflicts_unless_forced(api: ApiServer) -> None:
    api.admin.apply(network(*ONE), "podwired").expect(201)
    theirs = network("n1", OTHER, ["192.0.2.11"])
    refused = api.admin.apply(theirs, "intruder", force=False)
    assert (refused.code, refused.body["reason"]) == (409, "Conflict")
    assert "Apply failed with 1 conflict" in refused.body["message"]
    assert 'conflict with "podwired"' in refused.body["message"]
    [cause] = refused.body["details"]["causes"]
    assert (cause["reason"], cause["field"]) == ("FieldManagerConflict", ".spec.podCIDRs")
    forced = api.admin.apply(theirs, "intruder").expect(200)
    assert forced["spec"]["podCIDRs"] == OTHER
    managers = {e["manager"]: e["fieldsV1"] for e in forced["metadata"]["managedFields"]}
    assert managers["podwired"]["f:spec"] == {"f:addresses": {}}
    back = api.admin.apply(network(*ONE), "podwired", force=False)
    assert back.code == 409


def test_apply_takes_away_what_it_gave(api: ApiServer) -> None:
    made = owned(api)
    api.admin.apply(made, "podwired").expect(201)
    del made["metadata"]["ownerReferences"]
    after = api.admin.apply(made, "podwired").expect(200)
    assert not after["metadata"].get("ownerReferences")


def test_merge_patch_and_update_notice_that_they_are_late(api: ApiServer) -> None:
    old = api.put_network(*ONE)
    path = place_of("NodeNetwork", SPACE, "n1")
    api.admin.ask("PATCH", path, {"spec": {"podCIDRs": OTHER}}, kind=MERGE).expect(200)
    late = api.admin.ask("PUT", path, old)
    assert (late.code, late.body["reason"]) == (409, "Conflict")
    assert "the object has been modified" in late.body["message"]
    fresh = api.network("n1")
    assert fresh is not None
    fresh["spec"]["podCIDRs"] = ["10.244.98.0/24"]
    assert api.admin.ask("PUT", path, fresh).expect(200)["spec"]["podCIDRs"] == ["10.244.98.0/24"]


def test_what_is_asked_wrongly_is_refused(api: ApiServer) -> None:
    path = place_of("NodeNetwork", SPACE, "n1")
    assert api.admin.ask("PATCH", path, network(*ONE), kind=APPLY).code == 422
    other = api.admin.ask("PATCH", path, network("n2", *ONE[1:]), kind=APPLY, fieldManager="t")
    assert other.code == 400
    assert api.admin.ask("PATCH", path, b"{", kind=APPLY, fieldManager="t").code == 400
    assert api.admin.ask("GET", "/apis/podwire.dev/v1/others").code == 404
    missing = api.admin.ask("GET", path)
    assert (missing.code, missing.body["reason"]) == (404, "NotFound")
    assert missing.body["message"] == 'nodenetworks.podwire.dev "n1" not found'


def test_the_schema_holds(api: ApiServer) -> None:
    wrong = network("n1", ["10.244.1.0/24"], [])
    wrong["spec"]["podCIDRs"] = [7]
    refused = api.admin.apply(wrong)
    assert refused.code in (400, 422, 500), refused
    many = network("n1", [f"10.244.{n}.0/24" for n in range(200)], ["192.0.2.11"])
    assert api.admin.apply(many).code == 422
    extra = network(*ONE)
    extra["spec"]["command"] = "rm"
    assert "command" not in api.admin.apply(extra, "other").body.get("spec", {})


def test_list_is_of_one_version(api: ApiServer) -> None:
    made = api.put_network(*ONE)
    for asked in (None, 0):
        listed = api.admin.ask("GET", LISTED, resourceVersion=asked).expect(200)
        if asked is None:
            assert [version(item) for item in listed["items"]] == [version(made)]
            assert int(version(listed)) >= int(version(made))
    api.put_network("n2", ["10.244.2.0/24"], ["192.0.2.12"])
    one = api.admin.ask("GET", LISTED, limit=1).expect(200)
    assert [item["metadata"]["name"] for item in one["items"]] == ["n1"]
    assert one["metadata"]["remainingItemCount"] == 1
    assert int(version(one)) > int(version(made))
    beyond = api.admin.ask("GET", LISTED, resourceVersion=int(version(made)) + 10_000_000)
    assert (beyond.code, beyond.body["reason"]) == (504, "Timeout")


def test_long_lists_come_compressed(api: ApiServer) -> None:
    for number in range(320):
        api.put_network(f"n{number}", [f"10.{number // 250}.{number % 250}.0/24"], ["192.0.2.11"])
    headers = {"Accept-Encoding": "gzip"}
    plain = api.admin.ask("GET", LISTED)
    short = api.admin.ask("GET", LISTED, headers=headers)
    assert len(plain.body["items"]) == 320
    assert short.headers["Content-Encoding"] == "gzip"
    assert short.size < plain.size / 4


def test_watch_tells_what_came_after(api: ApiServer) -> None:
    since = version(api.put_network(*ONE))
    api.put_network("n1", OTHER, ["192.0.2.11"])
    api.put_network("n2", ["10.244.2.0/24"], ["192.0.2.12"])
    api.remove("NodeNetwork", "n2", SPACE)
    events = [*api.admin.watch(LISTED, resourceVersion=since, timeoutSeconds=4)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("MODIFIED", "n1"), ("ADDED", "n2"), ("DELETED", "n2"),
    ]  # fmt: skip
    versions = [int(version(e["object"])) for e in events]
    assert versions == sorted(set(versions))
    assert versions[0] > int(since)
    assert events[2]["object"]["spec"]["podCIDRs"] == ["10.244.2.0/24"]


def test_watch_without_a_version_begins_with_all(api: ApiServer) -> None:
    api.put_network(*ONE)
    events = [*api.admin.watch(LISTED, timeoutSeconds=4)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [("ADDED", "n1")]


def test_bookmarks_move_on_without_changes(api: ApiServer) -> None:
    since = version(api.put_network(*ONE))
    api.add_node("n7", [], [])
    events = [
        *api.admin.watch(
            LISTED, resourceVersion=since, allowWatchBookmarks="true", timeoutSeconds=12
        )
    ]
    assert events, "no bookmark before the end"
    assert {e["type"] for e in events} == {"BOOKMARK"}
    versions = [int(version(e["object"])) for e in events]
    assert versions == sorted(versions)
    assert versions[-1] > int(since)
    assert events[-1]["object"]["kind"] == "NodeNetwork"
    assert "spec" not in events[-1]["object"] or not events[-1]["object"]["spec"]


def test_old_versions_are_gone_after_a_restart(api: ApiServer) -> None:
    since = version(api.put_network(*ONE))
    api.put_network("n1", OTHER, ["192.0.2.11"])
    api.restart()
    kept = api.network("n1")
    assert kept is not None
    assert kept["spec"]["podCIDRs"] == OTHER
    [event] = api.admin.watch(LISTED, resourceVersion=since, timeoutSeconds=5)
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert re.match(r"too old resource version: \d+ \(\d+\)", event["object"]["message"])


def test_strangers_are_denied_in_words(api: ApiServer, wire: Wire) -> None:
    stranger = api.client(wire, api.stranger())
    denied = stranger.ask("GET", LISTED)
    assert (denied.code, denied.body["reason"]) == (403, "Forbidden")
    assert denied.body["message"] == (
        'nodenetworks.podwire.dev is forbidden: User "system:serviceaccount:podwire:stranger" '
        'cannot list resource "nodenetworks" in API group "podwire.dev" in the namespace "podwire"'
    )
    [event] = stranger.watch(LISTED)
    assert (event["type"], event["object"]["code"]) == ("HTTP", 403)
    nobody = api.client(wire, "no-token").ask("GET", LISTED)
    assert (nobody.code, nobody.body["message"]) == (401, "Unauthorized")


def test_rights_of_a_daemon(api: ApiServer, wire: Wire) -> None:
    node = api.add_node(*ONE)
    api.add_node("n2", ["10.244.2.0/24"], ["192.0.2.12"])
    daemon = api.client(wire, api.issue("n1"))
    assert daemon.ask("GET", place_of("Node", "", "n1")).expect(200)["metadata"] == node["metadata"]
    assert daemon.ask("GET", place_of("Node", "", "n2")).code == 200
    own = "metadata.name=n1"
    [found] = daemon.ask("GET", place_of("Node"), fieldSelector=own).expect(200)["items"]
    assert found["metadata"] == node["metadata"]
    report = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.66"}]}}
    status = f"{place_of('Node', '', 'n1')}/status"
    assert daemon.ask("PATCH", status, report, kind=MERGE).code == 403
    # A watch of all waits for the server's cache, but not for long (504).
    for _ in range(10):
        event = next(daemon.watch(place_of("Node"), fieldSelector=own))
        if event["type"] not in ("ERROR", "HTTP"):
            break
        time.sleep(0.5)
    assert event["object"].get("metadata", {}).get("name") == "n1", event
    # What policies are about it may list, and no more.
    for kind in ("Pod", "Namespace", "NetworkPolicy"):
        assert daemon.ask("GET", place_of(kind)).code == 200
    assert daemon.ask("DELETE", place_of("Pod", SPACE, "podwired-n1")).code == 403
    assert daemon.ask("DELETE", place_of("NetworkPolicy", SPACE)).code == 403
    for kind in ("ConfigMap", "ServiceAccount", "DaemonSet"):
        assert daemon.ask("GET", place_of(kind, SPACE)).code == 403
    assert daemon.ask("GET", place_of("ConfigMap", SYSTEM, KUBEADM)).code == 200
    assert daemon.ask("GET", place_of("ConfigMap", SYSTEM, "kube-proxy")).code == 403
    assert daemon.ask("GET", place_of("ConfigMap", SYSTEM)).code == 403
    assert daemon.ask("DELETE", place_of("ConfigMap", SYSTEM, KUBEADM)).code == 403
    assert daemon.ask("DELETE", place_of("Node", "", "n2")).code == 403
    assert daemon.ask("GET", LISTED).code == 200
    daemon.apply(network(*ONE), "podwired").expect(201)
    daemon.ask("DELETE", place_of("NodeNetwork", SPACE, "n1")).expect(200)


def test_a_daemon_writes_its_own_nodes_object_alone(api: ApiServer, wire: Wire) -> None:
    api.add_node(*ONE)
    api.put_network("n2", ["10.244.2.0/24"], ["192.0.2.12"])
    daemon = api.client(wire, api.issue("n1"))
    theirs = network("n2", OTHER, ["192.0.2.11"])
    for number in itertools.count():
        answer = daemon.apply(theirs, "podwired")
        # A policy takes effect some time after it was written.
        if answer.code in (403, 422) or number == 200:
            break
        time.sleep(0.2)
    assert answer.code in (403, 422), answer
    assert "n2" in str(answer.body["message"])
    assert daemon.ask("DELETE", place_of("NodeNetwork", SPACE, "n2")).code in (403, 422)
    daemon.apply(network(*ONE), "podwired").expect(201)


def test_a_token_without_a_node_writes_nothing(api: ApiServer, wire: Wire) -> None:
    api.add_node(*ONE)
    api.put_network("n2", ["10.244.2.0/24"], ["192.0.2.12"])
    daemon = api.client(wire, api.issue_unbound())
    assert daemon.ask("GET", LISTED).code == 200
    for name in ("n1", "n2"):
        assert daemon.apply(network(name, *ONE[1:]), "podwired").code in (403, 422)
    assert daemon.ask("DELETE", place_of("NodeNetwork", SPACE, "n2")).code in (403, 422)


def test_a_token_that_is_bound_to_a_node_writes_its_object(api: ApiServer, wire: Wire) -> None:
    """As a daemon has it that is no pod."""
    node = api.add_node(*ONE)
    bound = {"kind": "Node", "apiVersion": "v1", "name": "n1", "uid": node["metadata"]["uid"]}
    daemon = api.client(wire, api.issue_unbound(bound))
    daemon.apply(network(*ONE), "podwired").expect(201)
    assert daemon.apply(network("n2", *ONE[1:]), "podwired").code in (403, 422)
    daemon.ask("DELETE", place_of("NodeNetwork", SPACE, "n1")).expect(200)


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH", "DELETE"])
def test_no_verb_reaches_another_nodes_object(api: ApiServer, wire: Wire, verb: str) -> None:
    api.add_node(*ONE)
    theirs = api.put_network("n2", ["10.244.2.0/24"], ["192.0.2.12"])
    daemon = api.client(wire, api.issue("n1"))
    body: Object | None = {**theirs, "spec": {**theirs["spec"], "podCIDRs": OTHER}}
    path = place_of("NodeNetwork", SPACE, "" if verb == "POST" else "n2")
    if verb == "POST":
        body = network("n3", OTHER, ["192.0.2.13"])
    elif verb == "DELETE":
        body = None
    kind = MERGE if verb == "PATCH" else "application/json"
    assert daemon.ask(verb, path, body, kind=kind).code in (403, 422)
    assert daemon.ask("DELETE", place_of("NodeNetwork", SPACE)).code == 403  # of all at once
    assert api.network("n2") == theirs
    assert api.network("n3") is None


def test_a_token_ends_with_its_pod(api: ApiServer, wire: Wire) -> None:
    api.add_node(*ONE)
    old = api.client(wire, api.issue("n1"))
    assert old.ask("GET", LISTED).code == 200
    fresh = api.client(wire, api.issue("n1"))
    for _ in range(600):  # the real one believes a token that it has seen for 10 s
        if old.ask("GET", LISTED).code == 401:
            break
        time.sleep(0.1)
    assert old.ask("GET", LISTED).code == 401
    assert fresh.ask("GET", LISTED).code == 200


def test_pod_cidrs_of_a_node_are_set_once(api: ApiServer) -> None:
    api.add_node("n1", [], ["192.0.2.11"])
    api.assign("n1", ["10.244.1.0/24"])
    patch = {"spec": {"podCIDR": OTHER[0], "podCIDRs": OTHER}}
    answer = api.admin.ask("PATCH", place_of("Node", "", "n1"), patch, kind=MERGE)
    assert answer.code == 422


def test_requests_are_noted(api: ApiServer, wire: Wire) -> None:
    api.add_node(*ONE)
    token = api.issue("n1")
    before = len(api.requests())
    began = time.time()
    daemon = api.client(wire, token)
    daemon.ask("GET", LISTED, resourceVersion=0).expect(200)
    list(daemon.watch(LISTED, timeoutSeconds=1))
    eventually(lambda: len(api.requests()) >= before + 2)
    found = api.requests()[before:]
    assert [(r.verb, r.code) for r in found] == [("list", 200), ("watch", 200)]
    assert all(abs(r.time - began) < 60 for r in found)
    assert "resourceVersion=0" in found[0].uri


@pytest.mark.parametrize("way", ["refuse", "hush"])
def test_wires_fail_and_heal(api: ApiServer, wire: Wire, way: str, tmp_path: Path) -> None:
    daemon = api.client(wire, api.stranger())
    assert daemon.ask("GET", LISTED).code == 403
    assert min(wire.down, wire.up) > 0
    getattr(wire, way)()
    if way == "refuse":
        with pytest.raises(Refused):
            daemon.ask("GET", LISTED)
    wire.listen()
    assert daemon.ask("GET", LISTED).code == 403
