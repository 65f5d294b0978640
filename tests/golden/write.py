"""Writes the golden files anew; run by hand after a deliberate change of the layout."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.unit.exchange import every_type, java

_HERE = Path(__file__).resolve().parent


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        classes = Path(scratch) / "classes"
        java.compile_into(classes)
        codec = java.JavaCodec(classes, Path(scratch))
        python = every_type.batch().serialize().to_pybytes()
        (written,) = codec.round_trip(
            every_type.ROW_TYPE, python, batch_rows=16, slot_bytes=1 << 16
        )
        (_HERE / "every_type.schema").write_bytes(codec.schema(every_type.ROW_TYPE))
        (_HERE / "every_type.python").write_bytes(python)
        (_HERE / "every_type.java").write_bytes(written)
        text = codec.rows(every_type.ROW_TYPE, written)
        (_HERE / "every_type.txt").write_text(text, encoding="utf-8")
        codec.close()


if __name__ == "__main__":
    main()
