"""What is written is read again block by block, as the draft has it."""

import struct
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from ctl.capture.pcapng import Interface, begin, render_dropped, render_frame


def blocks(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        kind, length = struct.unpack_from("=II", data)
        assert length % 4 == 0
        assert data[length - 4 : length] == data[4:8]
        yield kind, data[8 : length - 4]
        data = data[length:]


def options(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        code, length = struct.unpack_from("=HH", data)
        if not code:
            assert len(data) == 4
            break
        found[code] = data[4 : 4 + length]
        data = data[4 + length + -length % 4 :]
    return found


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=4),
    st.binary(max_size=70),
    st.integers(0, 2**63 - 1),
    st.booleans(),
)
def test_round_trip(links: list[tuple[str, str]], data: bytes, time: int, outgoing: bool) -> None:
    text = begin([Interface(*each) for each in links])
    text += render_frame(1, time, data, 2000, outgoing=outgoing) + render_dropped(1, time, 5)
    section, *interfaces, frame, dropped = blocks(text)
    assert section[0] == 0x0A0D0D0A
    assert section[1][:8] == struct.pack("=IHH", 0x1A2B3C4D, 1, 0)
    for (kind, body), (name, description) in zip(interfaces, links, strict=True):
        assert kind == 1
        found = options(body[8:])
        assert found[2] == name.encode(errors="replace")
        assert found[3] == description.encode(errors="replace")
        assert found[9] == b"\x09"
    number, high, low, kept, whole = struct.unpack_from("=5I", frame[1])
    assert (number, high << 32 | low, kept, whole) == (1, time, len(data), 2000)
    assert frame[1][20 : 20 + kept] == data
    assert options(frame[1][20 + kept + -kept % 4 :])[2] == struct.pack("=I", 2 if outgoing else 1)
    assert options(dropped[1][12:])[5] == struct.pack("=Q", 5)
