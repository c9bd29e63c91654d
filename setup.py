"""The build step that setuptools does not have: the shim, compiled with the system's compiler.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

# isort: split
# After setuptools, which brings a distutils of its own (Python has none from 3.12 on).
from distutils.command.build_scripts import build_scripts

SOURCE = Path("cni_plugin/shim/shim.c")
NAMES = ("podwire", "podwire-ipam")
FLAGS = ("-std=gnu11", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror")
# musl first: its static start costs half of glibc's, at a twentieth of the size.
COMPILERS = ("musl-gcc", "gcc", "cc", "clang")
STAND_IN = """#!python
# No C compiler was there when podwire was installed: this is the entry point without the shim,
# which starts in tens of milliseconds instead of less than one, and cannot use the daemon.
import sys

from cni_plugin.__main__ import {function}

if __name__ == "__main__":
    sys.exit({function}())
"""


class BuildShim(build_scripts):
    """Compile the shim under the names of the executables; without a compiler, Python's own."""

    def run(self) -> None:
        """Make the executables in the build folder; bdist_wheel and install take them there."""
        folder = Path(self.build_dir)
        folder.mkdir(parents=True, exist_ok=True)
        compiled = compile_shim(folder / NAMES[0])
        for name in NAMES:
            target = folder / name
            if not compiled:
                function = "ipam_main" if name == "podwire-ipam" else "main"
                target.write_text(STAND_IN.format(function=function))
            elif name != NAMES[0]:
                shutil.copy2(folder / NAMES[0], target)
            target.chmod(0o755)
        if not compiled:
            print("podwire: no C compiler found; installing the Python entry point in its place")


def compile_shim(target: Path) -> bool:
    """Compile with the first compiler that can; whether one could."""
    for compiler in filter(shutil.which, (os.environ.get("CC", ""), *COMPILERS)):
        command = [compiler, *FLAGS, "-o", str(target), str(SOURCE)]
        if subprocess.run(command, check=False).returncode == 0:
            return True
    return False


class PlatformWheel(bdist_wheel):
    """A wheel for one platform, any Python 3: it holds an executable, no extension module."""

    def finalize_options(self) -> None:
        """Say that the wheel is not pure."""
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> Any:
        """The platform's tag with Python's and the ABI's left open."""
        _python, _abi, platform = super().get_tag()
        return "py3", "none", platform


setup(
    scripts=[str(SOURCE)],
    cmdclass={"build_scripts": BuildShim, "bdist_wheel": PlatformWheel},
)
