"""ModelHub Serving: many MLflow models behind one port, each in its own process and environment.

Light to import: names are loaded when they are used.
"""

from __future__ import annotations

__version__ = "0.1.0"
