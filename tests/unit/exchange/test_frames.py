"""Frames as values: every frame survives the wire, nothing else is taken for one."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ProtocolError
from headrace.exchange.frames import (
    AbortFrame,
    BarrierAckFrame,
    BarrierFrame,
    BatchFrame,
    CompleteFrame,
    CreditFrame,
    DeclineFrame,
    DirectionOffer,
    EndFrame,
    Frame,
    FrameDecoder,
    HelloFrame,
    IdleFrame,
    MappedFrame,
    OpenFrame,
    OversizeCreditFrame,
    OversizeFrame,
    StateCreditFrame,
    StateOffer,
    WatermarkFrame,
    encode,
)

_I64 = st.integers(-(1 << 63), (1 << 63) - 1)
_U32 = st.integers(0, (1 << 32) - 1)
_COUNT = st.integers(0, (1 << 63) - 1)
_TEXT = st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text)
_OFFERS = st.builds(
    DirectionOffer,
    path=_TEXT,
    slots=st.integers(1, 1024),
    slot_bytes=st.integers(1, 1 << 18).map(lambda pages: pages * 4096),
    schema=st.binary(max_size=200),
    batch_rows=st.integers(1, 1 << 20),
    max_row_bytes=st.integers(1, 1 << 31),
)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(HelloFrame, attempt=_COUNT, pid=_COUNT, version=_I64),
    st.builds(OpenFrame, st.none() | _OFFERS, st.none() | _OFFERS, _I64),
    st.just(MappedFrame()),
    st.builds(BatchFrame, _COUNT, _U32, _U32),
    st.builds(OversizeFrame, st.integers(1, (1 << 63) - 1), _TEXT.filter(str.isprintable)),
    st.builds(CreditFrame, _COUNT),
    st.just(OversizeCreditFrame()),
    st.builds(WatermarkFrame, _I64),
    st.builds(BarrierFrame, _I64),
    st.builds(
        BarrierAckFrame,
        _I64,
        st.none() | st.builds(StateOffer, _U32, st.integers(1, (1 << 63) - 1), _TEXT),
    ),
    st.builds(StateCreditFrame, _COUNT),
    st.builds(AbortFrame, _COUNT),
    st.builds(DeclineFrame, _COUNT),
    st.builds(CompleteFrame, _COUNT),
    st.just(EndFrame()),
    st.builds(IdleFrame, _COUNT),
)


def header(code: int, payload: bytes = b"", value: int = 0, zeros: bytes = b"\0\0\0") -> bytes:
    return struct.pack("<B3sIq", code, zeros, len(payload), value) + payload


@given(st.lists(FRAMES, max_size=8), st.data())
def test_frames_survive_the_wire_in_pieces_of_any_size(
    frames: list[Frame], data: st.DataObject
) -> None:
    wire = b"".join(encode(frame) for frame in frames)
    decoder = FrameDecoder()
    got: list[Frame] = []
    while wire:
        size = data.draw(st.integers(1, len(wire)))
        got += decoder.feed(wire[:size])
        wire = wire[size:]
    assert got == frames
    assert not decoder.has_partial_frame


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waits_for_more(noise: bytes) -> None:
    decoder = FrameDecoder()
    try:
        frames = decoder.feed(noise)
    except ProtocolError:
        return
    # What was taken for frames is exactly what would be written for them.
    assert noise.startswith(b"".join(encode(frame) for frame in frames if _is_exact(frame)))


def _is_exact(frame: Frame) -> bool:
    return not isinstance(frame, HelloFrame | OpenFrame)  # JSON has more than one spelling


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        (BatchFrame(3, 1000, 7), "04000000 08000000 0300000000000000 e8030000 07000000"),
        (CreditFrame(2), "06000000 00000000 0200000000000000"),
        (WatermarkFrame(-1), "08000000 00000000 ffffffffffffffff"),
        (BarrierFrame(258), "09000000 00000000 0201000000000000"),
        (BarrierAckFrame(258), "0a000000 00000000 0201000000000000"),
        (
            BarrierAckFrame(258, StateOffer(3, 4096, "/é")),
            "0a000000 0f000000 0201000000000000 03000000 0010000000000000 2fc3a9",
        ),
        (StateCreditFrame(3), "0d000000 00000000 0300000000000000"),
        (AbortFrame(258), "0e000000 00000000 0201000000000000"),
        (DeclineFrame(258), "0f000000 00000000 0201000000000000"),
        (CompleteFrame(258), "10000000 00000000 0201000000000000"),
        (EndFrame(), "0b000000 00000000 0000000000000000"),
        (IdleFrame(3), "0c000000 00000000 0300000000000000"),
        (MappedFrame(), "03000000 00000000 0000000000000000"),
        (OversizeCreditFrame(), "07000000 00000000 0000000000000000"),
        (OversizeFrame(5, "/é"), "05000000 03000000 0500000000000000 2fc3a9"),
    ],
)
def test_a_frame_has_the_bytes_of_the_document(frame: Frame, wire: str) -> None:
    assert encode(frame) == bytes.fromhex(wire)
    assert FrameDecoder().feed(bytes.fromhex(wire)) == [frame]


@pytest.mark.parametrize(
    "wire",
    [
        header(0),
        header(16, value=-1),
        header(16, b"x"),
        header(17),
        header(13, value=-1),
        header(13, b"x"),
        header(14, value=-1),
        header(10, b"x", 1),
        header(10, struct.pack("<Iq", 1, 8), 1),
        header(10, struct.pack("<Iq", 1, 0) + b"/path", 1),
        header(10, struct.pack("<Iq", 1, 8) + b"\xff", 1),
        header(255),
        header(11, zeros=b"\0\1\0"),
        struct.pack("<B3sIq", 1, b"\0\0\0", (1 << 20) + 1, 1),
        header(11, value=1),
        header(11, b"x"),
        header(3, value=1),
        header(7, b"x"),
        header(8, b"x"),
        header(6, value=-1),
        header(4, b"1234567", 1),
        header(4, bytes(8), -1),
        header(5, b"", 1),
        header(5, b"a\0b", 1),
        header(5, b"\xff", 1),
        header(5, b"/path", 0),
        header(1, b"[]", 1),
        header(1, b"{", 1),
        header(1, b'{"attempt": 1}', 1),
        header(1, b'{"attempt": true, "pid": 1}', 1),
        header(2, b'{"input": 3}', 1),
        header(2, b'{"input": {"path": "/x", "schema": "??"}}', 1),
    ],
)
def test_what_the_protocol_does_not_allow_is_refused(wire: bytes) -> None:
    with pytest.raises(ProtocolError):
        FrameDecoder().feed(wire)


def test_unknown_fields_of_a_greeting_are_ignored() -> None:
    wire = header(1, b'{"attempt": 4, "pid": 9, "mood": "good"}', 1)
    assert FrameDecoder().feed(wire) == [HelloFrame(attempt=4, pid=9)]


@pytest.mark.parametrize("frame", [BatchFrame(0, 1 << 32, 1), CreditFrame(1 << 63)])
def test_a_value_that_does_not_fit_the_wire_is_refused(frame: Frame) -> None:
    with pytest.raises(ProtocolError, match="does not fit"):
        encode(frame)
