"""podwired.yaml: `schema` has its keys, `values` what they take, `load` reads it.

Here are the defaults that commands need without a configuration. They load nothing.
"""

from collections.abc import Mapping
from pathlib import Path

DEFAULT_CONFIG = Path("/etc/podwire/podwired.yaml")
DEFAULT_CONFLIST = Path("/etc/cni/net.d/05-podwire.conflist")

MIN_JOURNAL_BYTES, DEFAULT_JOURNAL_BYTES = 64 << 10, 16 << 20
"""What bounds the journal."""

JOURNAL = "journal.jsonl"
"""Below the data folder, unless `journal.path` is set."""
LAST_KNOWN = "cluster.json"
"""Below the data folder: the state of a source that is no file itself."""
LEASE = "etcd-lease.json"
"""Below the data folder: what this node holds in an etcd."""
ORIGINAL_SYSCTLS = "sysctls.json"
"""Below the data folder: values of settings before podwire changed them."""
POLICIES = "policy.json"
"""Below the data folder: policies, with the pods and namespaces that they are about."""
DATA_FILES = (LAST_KNOWN, LEASE, ORIGINAL_SYSCTLS, POLICIES)
"""What the daemon keeps in the data folder, beside the database and the journal."""


def path_in(env: Mapping[str, str], variable: str, default: Path) -> Path:
    """The path that a variable has; empty counts as unset. Raises ValueError."""
    text = env.get(variable) or str(default)
    if not text.startswith("/"):
        raise ValueError(f"{variable} is {text!r}, must be an absolute path")
    return Path(text)
