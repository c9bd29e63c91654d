"""A certificate authority of the tests' own, and what it signs; by openssl(1)."""

from pathlib import Path

from tests.pytest_netns.namespace import run

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Signs certificates; everything is in one folder, private keys for root alone."""

    def __init__(self, folder: Path, name: str = "podwire tests") -> None:
        self.folder = folder
        self.certificate, self._key = folder / "ca.crt", folder / "ca.key"
        folder.mkdir(parents=True, exist_ok=True)
        run(["openssl", "req", "-x509", *_KEY, "-keyout", self._key, "-out", self.certificate,
             "-subj", f"/CN={name}", "-days", "2"])  # fmt: skip

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """Certificate and key; addresses: of a server."""
        request, extensions, certificate, key = (
            self.folder / f"{name}.{ending}" for ending in ("csr", "ext", "crt", "key")
        )
        names = ",".join(f"IP:{address}" for address in addresses)
        alternative = f"subjectAltName={names}\n" if names else ""
        extensions.write_text(f"{alternative}extendedKeyUsage=serverAuth,clientAuth\n")
        # etcd's gateway refuses certificates with a common name where it asks clients for one.
        run(["openssl", "req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/O={name}"])
        run(["openssl", "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey",
             self._key, "-CAcreateserial", "-days", "2", "-extfile", extensions,
             "-out", certificate])  # fmt: skip
        return certificate, key
