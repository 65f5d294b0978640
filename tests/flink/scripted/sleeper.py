"""A process without rows: ends at once, or never (`sleeps`)."""

from __future__ import annotations

import json
import sys

from .lines import pause

if __name__ == "__main__":
    if json.loads(sys.argv[2]).get("sleeps"):
        pause(1000)
