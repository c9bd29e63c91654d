"""Random mutants of pure modules: how many do the unit tests of the same package catch?

    build/venv/bin/python -m tests.tools.mutants [PACKAGE-OR-MODULE ...] [--sample N] [--seed S]

A PACKAGE is a key of PURE (default: all of them), a MODULE a path such as ipam/pool.py. Run by
hand, from the repository's root. Each mutant is one small change in a copy of the tree:

    flipped     a comparison says the opposite
    negated     a condition of an if, while, conditional expression or comprehension is negated
    dropped     a result is lost: `return x` returns None, `name = f()` assigns None
    left-out    a statement that is a call is not there

Then the unit tests of the package run until the first one fails: first those of the module, then
the others of its folder. One that is still running after the time limit fails, too. Prints a line
for each mutant, the survivors with their change, and the share that was caught for each package.
The exit status is 0 where each package reaches the goal.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.85
TIME_LIMIT = 600
"""Seconds for the unit tests of a folder."""
PURE: dict[str, tuple[str, ...]] = {
    "kernel": (
        "describe", "diff", "forwarding", "netlink/codec", "netlink/links", "netlink/neighbours",
        "netlink/routes", "nftables/dns_counters", "nftables/masquerade", "nftables/ruleset",
        "nftables/set_messages", "nftables/spoof_check", "nftables/table", "routes", "sysctl",
        "vxlan",
    ),
    "ipam": (
        "allocator", "boot", "config", "errors", "host_local_files", "json_section", "pool",
        "ranges", "recovery", "transaction", "usage",
    ),
    "cni_plugin": (
        "attachment", "config", "delegation", "delete", "handle", "ipam_client", "names", "plan",
        "removal", "request", "result", "versions",
    ),
    "daemon/routing": (
        "authors", "backends/base", "backends/host_gw", "backends/hybrid", "backends/none",
        "backends/vxlan", "backoff", "conflicts", "conflist", "host_state", "peer_routes",
        "planner", "reporter",
    ),
    "daemon/probes": ("diagnosis", "peer", "peers", "protocol", "report", "schedule"),
}  # fmt: skip
"""By package its modules whose behaviour unit tests can see; those that are not there are not
looked for."""
_OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Is: ast.IsNot, ast.In: ast.NotIn,
}  # fmt: skip
_OPPOSITE |= {b: a for a, b in _OPPOSITE.items()}
_NOT_COPIED = ("build", ".git", ".hypothesis", "__pycache__", ".*_cache", "*.egg-info")


@dataclass(frozen=True)
class Mutant:
    """A change of one node: text replaces the bytes from start to end of the file."""

    package: str
    path: str
    line: int
    kind: str
    start: int
    end: int
    text: str

    def apply(self, source: bytes) -> bytes:
        """The file with the change."""
        return source[: self.start] + self.text.encode() + source[self.end :]

    def describe(self, source: bytes) -> str:
        """Place, kind and change, on a line."""
        before = " ".join(source[self.start : self.end].decode().split())
        return f"{self.path}:{self.line} {self.kind}: {before}  ->  {self.text}"


def find_mutants(package: str, path: str) -> list[Mutant]:
    """All mutants of a module."""
    source = (ROOT / path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for kind, node, text in _changes(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        found.append(Mutant(package, path, node.lineno, kind, start, end, text))
    return found


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """(kind, the node to replace, the text that replaces it)"""
    for node in _walk(tree):
        if isinstance(node, ast.Compare):
            for n, op in enumerate(node.ops):
                ops = [*node.ops[:n], _OPPOSITE[type(op)](), *node.ops[n + 1 :]]
                flipped = ast.Compare(node.left, ops, node.comparators)
                yield "flipped", node, f"({ast.unparse(flipped)})"
        for test in _conditions(node):
            if not (isinstance(test, ast.Compare) and len(test.ops) == 1):  # that is flipped
                yield "negated", test, f"(not ({ast.unparse(test)}))"
        if isinstance(node, ast.Return) and not _is_none(node.value):
            yield "dropped", node, "return None"
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            targets = node.targets
            if len(targets) == 1 and isinstance(targets[0], ast.Name | ast.Attribute):
                yield "dropped", node, f"{ast.unparse(targets[0])} = None"
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield "left-out", node, "pass"


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what is not executed or only for people: annotations, assertions."""
    if isinstance(node, ast.Assert) or _is_for_types(node):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _walk(child)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "False")


def _conditions(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        return [node.test]
    return node.ifs if isinstance(node, ast.comprehension) else []


def _is_none(value: ast.expr | None) -> bool:
    return value is None or (isinstance(value, ast.Constant) and value.value is None)


def tests_of(package: str, path: str) -> list[str]:
    """What runs, in order: the module's own tests, and all of the package."""
    folder = Path("tests/unit") / package
    own = Path("tests/unit") / Path(path).with_name(f"test_{Path(path).name}")
    return [str(test) for test in (own, folder) if (ROOT / test).exists()]


def run_tests(tree: Path, targets: list[str]) -> bool:
    """Whether they all pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    # A new process may not find the byte code of another mutant of the same second and size.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for target in targets:
        try:
            done = subprocess.run(
                [*command, target], cwd=tree, env=env, capture_output=True, timeout=TIME_LIMIT
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode != 0:
            return False
    return True


def is_caught(tree: Path, mutant: Mutant) -> bool:
    """Whether the tests in the copy of the tree notice the mutant."""
    file = tree / mutant.path
    source = file.read_bytes()
    file.write_bytes(mutant.apply(source))
    try:
        return not run_tests(tree, tests_of(mutant.package, mutant.path))
    finally:
        file.write_bytes(source)


def find_modules(names: list[str]) -> list[tuple[str, str]]:
    """Package and path of each module of these packages and paths."""
    found = []
    for package, modules in PURE.items():
        for path in (f"{package}/{module}.py" for module in modules):
            if (package in names or path in names) and (ROOT / path).exists():
                found.append((package, path))
    return found


def main() -> int:
    """Sample, run and report; the exit status."""
    arguments = _parse_arguments()
    names = arguments.what or list(PURE)
    modules = find_modules(names)
    mutants = [mutant for module in modules for mutant in find_mutants(*module)]
    chosen = random.Random(arguments.seed).sample(mutants, min(arguments.sample, len(mutants)))
    packages = sorted({mutant.package for mutant in chosen})
    print(
        f"{len(chosen)} of {len(mutants)} mutants of {len(modules)} modules, seed {arguments.seed}"
    )
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = SimpleQueue[Path]()
        for job in range(arguments.jobs):
            trees.put(_copy_tree(Path(folder) / str(job)))
        if not arguments.no_baseline:
            first = trees.get()
            for package in packages:
                if not run_tests(first, [f"tests/unit/{package}"]):
                    print(f"the unit tests of {package} fail without any mutant")
                    return 2
            trees.put(first)
        with ThreadPoolExecutor(arguments.jobs) as pool:
            caught = list(pool.map(lambda mutant: _examine(trees, mutant), chosen))
    return _summarize(dict(zip(chosen, caught, strict=True)))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", metavar="PACKAGE-OR-MODULE", help=", ".join(PURE))
    parser.add_argument("--sample", type=int, default=40, metavar="N", help="mutants (40)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the sample (1)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="at a time (1)")
    parser.add_argument(
        "--no-baseline", action="store_true", help="do not run the tests without a mutant first"
    )
    return parser.parse_args()


def _copy_tree(to: Path) -> Path:
    shutil.copytree(ROOT, to, ignore=shutil.ignore_patterns(*_NOT_COPIED), symlinks=True)
    (to / "build").symlink_to(ROOT / "build")
    return to


def _examine(trees: SimpleQueue[Path], mutant: Mutant) -> bool:
    tree = trees.get()
    try:
        caught = is_caught(tree, mutant)
    finally:
        trees.put(tree)
    source = (ROOT / mutant.path).read_bytes()
    print("caught  " if caught else "SURVIVED", mutant.describe(source), flush=True)
    return caught


def _summarize(caught: dict[Mutant, bool]) -> int:
    by_package = defaultdict[str, list[bool]](list)
    for mutant, result in caught.items():
        by_package[mutant.package].append(result)
    for package, results in sorted(by_package.items()):
        share = sum(results) / len(results)
        print(f"{package}: {sum(results)} of {len(results)} caught ({share:.0%})")
    return int(any(sum(r) < GOAL * len(r) for r in by_package.values()))


if __name__ == "__main__":
    sys.exit(main())
