"""podwire's tests; README.md says which folder covers what."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The project's folder."""

PACKAGES = ("cni_plugin", "ctl", "daemon", "ipam", "kernel")
"""The folders of the product's code."""
