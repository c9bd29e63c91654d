"""Many sources of one process begin at once: it does not matter which of them reads first."""

import subprocess
import sys
from pathlib import Path

from tests.cluster.apiserver import make_kubeconfig
from tests.pytest_netns.tools import ROOT

_BEGIN = """
import sys, threading
from ipaddress import ip_network
from pathlib import Path
from daemon.config.schema import KubernetesSettings
from daemon.sources.kubernetes.kubeconfig import read_access

settings = KubernetesSettings(
    cluster_cidrs=(ip_network("10.0.0.0/8"),), kubeconfig=Path(sys.argv[1])
)
sys.setswitchinterval(1e-4)
barrier, read = threading.Barrier(64), []

def begin():
    barrier.wait()
    read.append(read_access(settings).cluster.server)

threads = [threading.Thread(target=begin) for _ in range(64)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(read))
"""


def test_threads_that_read_the_configuration_first_crash_nothing(tmp_path: Path) -> None:
    """One round in ten ended with SIGSEGV, in a library."""
    ca = tmp_path / "ca.crt"
    ca.write_text("none")
    token = tmp_path / "token"
    token.write_text("none")
    kubeconfig = make_kubeconfig(tmp_path, "https://127.0.0.1:1", ca, token)
    for _ in range(25):
        argv = [sys.executable, "-c", _BEGIN, str(kubeconfig)]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
        assert (done.returncode, done.stdout) == (0, "64\n"), done.stderr
