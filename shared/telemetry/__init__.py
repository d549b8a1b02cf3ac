"""What work cost (tally.py), and what operators and dashboards get to see of it (signals.py, export.py, logs.py)."""

from shared.telemetry.tally import Tally, count

__all__ = ["Tally", "count"]
