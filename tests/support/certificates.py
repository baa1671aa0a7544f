"""An authority of a test's own, and what it vouches for."""

import shutil
import subprocess
from pathlib import Path

from tests.support.servers import missing


def make_certificates(folder: Path) -> None:
    """Make ca.crt, and server.crt and client.crt with their keys; the server's is for 127.0.0.1."""
    program = shutil.which("openssl")
    if program is None:
        missing("openssl is not installed")
    _openssl(
        program, folder, "req", "-x509", *_new_key("ca"), "-subj", "/CN=Our CA", "-out", "ca.crt"
    )
    for name in ("server", "client"):
        (folder / f"{name}.ext").write_text("subjectAltName=IP:127.0.0.1\n")
        _openssl(
            program, folder, "req", *_new_key(name), "-subj", f"/CN={name}", "-out", f"{name}.csr"
        )
        signed = (
            "-req",
            "-in",
            f"{name}.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
        )
        extended = "-extfile", f"{name}.ext", "-days", "2", "-out", f"{name}.crt"
        _openssl(program, folder, "x509", *signed, *extended)


def _new_key(name: str) -> list[str]:
    return [
        *["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"],
        "-keyout",
        f"{name}.key",
    ]


def _openssl(program: str, folder: Path, *words: str) -> None:
    subprocess.run([program, *words], cwd=folder, check=True, capture_output=True, timeout=30)
