"""Versions of the specification, and what each of them has."""

import pytest

from cni_plugin.errors import CniError
from cni_plugin.versions import SUPPORTED, has_version, require_supported, require_verb


def test_versions_are_in_order() -> None:
    for n, version in enumerate(SUPPORTED):
        assert [has_version(version, least) for least in SUPPORTED] == [
            m <= n for m in range(len(SUPPORTED))
        ]
        assert require_supported(version) == version


def test_a_configuration_without_a_version_is_of_the_first() -> None:
    assert require_supported(None) == require_supported("") == "0.1.0"


@pytest.mark.parametrize("version", ["1.2.0", "0.0.0", "10.0.0"])
def test_a_version_of_another_time(version: str) -> None:
    with pytest.raises(CniError, match="incompatible CNI version") as caught:
        require_supported(version)
    assert caught.value.code == 1


@pytest.mark.parametrize(
    "version", ["1.0", "1.0.0.0", "a.b.c", "1..0", 1, ["1.0.0"], "1" * 19 + ".0.0"]
)
def test_what_is_no_version(version: object) -> None:
    with pytest.raises(CniError, match="is not a version like") as caught:
        require_supported(version)
    assert caught.value.code == 6


@pytest.mark.parametrize(
    ("verb", "first"), [("CHECK", "0.4.0"), ("GC", "1.1.0"), ("STATUS", "1.1.0"), ("ADD", "0.1.0")]
)
def test_a_verb_came_with_a_version(verb: str, first: str) -> None:
    for version in SUPPORTED:
        if has_version(version, first):
            require_verb(version, verb)
        else:
            with pytest.raises(CniError, match=f"has no {verb}") as caught:
                require_verb(version, verb)
            assert caught.value.code == 1
