"""A stand-in for kube-apiserver, in as far as a node daemon can tell.

`python -m tests.cluster.standin` serves TLS with bearer tokens; get, list, watch, create, update,
merge patch, server-side apply, delete; bookmarks; what became of old resource versions; roles and
their bindings, service accounts' tokens, custom resource definitions with their schemas.  Objects
are kept in a file from one run to the next, as etcd would keep them.  `test_api.py` holds it to
the real one's behaviour.
"""
