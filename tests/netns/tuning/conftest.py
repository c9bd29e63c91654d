"""Tuning uses the scenes of the robustness tests."""

from tests.netns.robustness.conftest import scene, zygote

__all__ = ["scene", "zygote"]
