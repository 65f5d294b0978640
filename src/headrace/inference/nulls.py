"""Where a column has NULL: in a row, or in an element of a row's ARRAY."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

__all__ = ["null_rows"]


def null_rows(column: pa.Array) -> npt.NDArray[Any]:
    """Return the places of the rows that are NULL or have a NULL element, in order."""
    places = np.empty(0, np.int64)
    if column.null_count:
        places = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
    if pt.is_list(column.type):
        elements = column.flatten()
        if elements.null_count:
            parents = pc.list_parent_indices(column).filter(elements.is_null())
            places = np.union1d(places, parents.to_numpy(zero_copy_only=False))
    return places
