"""Several nodes, and the Kubernetes API that they learn each other from.

The API is a real kube-apiserver with a real etcd where the environment variable KUBEBUILDER_ASSETS
names the directory of both programs, as envtest has it; nothing is ever downloaded.  Beside it, and
alone where that is not set, runs the stand-in (`standin`), which `test_api.py` holds to the real
one's behaviour: each test that takes the fixture `api` runs once for each.

Both listen in a network namespace of their own.  What speaks to them goes through a `Wire`, which
counts bytes, and can be cut, silent, half-open or slow.
"""
