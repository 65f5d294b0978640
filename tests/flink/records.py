"""TFRecord framing and tf.Example's wire format, written a second time: makes unusual files."""

from __future__ import annotations

import struct

__all__ = ["entry", "example", "field", "frame", "masked_crc", "varint"]

_POLYNOMIAL = 0x82F63B78  # CRC-32C, reversed


def masked_crc(data: bytes) -> int:
    """Return the checksum of TFRecord files, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes, length: int | None = None) -> bytes:
    """Return a record; `length` says another length than that of the data."""
    header = struct.pack("<Q", len(data) if length is None else length)
    return b"".join(part + struct.pack("<I", masked_crc(part)) for part in (header, data))


def varint(value: int) -> bytes:
    """Return a varint; negative numbers have ten bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, *content: bytes) -> bytes:
    """Return a length-delimited field."""
    joined = b"".join(content)
    return varint(number << 3 | 2) + varint(len(joined)) + joined


def entry(name: str, *feature: bytes) -> bytes:
    """Return an entry of the map of features: its name, and the message Feature in parts."""
    return field(1, field(1, name.encode()), field(2, *feature))


def example(*entries: bytes) -> bytes:
    """Return a tf.Example of these entries."""
    return field(1, *entries)
