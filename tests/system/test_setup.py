"""What make says when it cannot fetch the packages, and whose certificates it trusts."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

MAKE = shutil.which("make") or "make"
ROOT = Path(__file__).parents[2]

# Where a tool looks for packages, and how often it tries.
WHERE = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "npm_config_registry")
ONCE = {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1", "UV_HTTP_RETRIES": "0", "npm_config_fetch_retries": "0"}
UNREACHABLE = {
    "no name resolution": dict.fromkeys(WHERE, "https://packages.invalid/simple/"),
    "nothing listens": dict.fromkeys(WHERE, "https://127.0.0.1:9/simple/"),
    "no proxy there": dict.fromkeys(WHERE, "https://packages.invalid/simple/")
    | dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9"),
}
TARGETS = {"pip": ".venv/.uv", "uv": ".venv/.ready", "npm": "node_modules/.ready"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what make needs for its set-up."""
    for name in ("Makefile", "package.json", "package-lock.json", ".npmrc"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


@pytest.fixture
def self_signed(tmp_path: Path) -> Iterator[str]:
    """The address of a server whose certificate nobody vouches for, as that of a proxy that looks into TLS."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem = tmp_path / "server.pem"
    pem.write_bytes(private + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # Each handshake fails.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://localhost:{server.server_port}/simple/"
        finally:
            server.shutdown()
            thread.join()


def prepare(checkout: Path, tool: str) -> None:
    """Do what comes before the tool's step."""
    venv = checkout / ".venv"
    if tool == "uv":
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        (venv / "bin" / "uv").symlink_to(shutil.which("uv", path=Path(sys.executable).parent) or "uv")
        (venv / ".uv").touch()
    if tool == "npm":
        venv.mkdir()
        (venv / "lib").symlink_to(Path(sys.prefix) / "lib")
        (venv / ".uv").touch()
        (venv / ".ready").touch()


def make(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What make does here, as if nobody had set up anything, and these tests were not run by make themselves."""
    settings = ("_proxy", "pip_", "uv_", "npm_config_", "make", "mflags")
    inherited = {
        name: value for name, value in os.environ.items() if not any(setting in name.lower() for setting in settings)
    }
    own = {"UV_CACHE_DIR": str(checkout / "uv"), "npm_config_cache": str(checkout / "npm"), "PIP_NO_CACHE_DIR": "1"}
    return subprocess.run(
        [MAKE, f"PYTHON={sys.executable}", *arguments],
        cwd=checkout,
        env=inherited | own | ONCE | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("why", UNREACHABLE)
@pytest.mark.parametrize("tool", TARGETS)
def test_no_network_is_one_line(checkout: Path, tool: str, why: str) -> None:
    prepare(checkout, tool)

    done = make(checkout, TARGETS[tool], **UNREACHABLE[why])

    line, *makes_own = done.stderr.splitlines()
    assert 2 == done.returncode
    assert "csms could not fetch its packages: there is no network, or it needs a proxy" in line
    assert all(own.startswith("make: ") for own in makes_own)
    assert not (checkout / TARGETS[tool]).exists()


def test_other_failure_is_shown_whole(checkout: Path) -> None:
    prepare(checkout, "uv")
    (checkout / "requirements" / "dev.txt").write_text("this is no requirement\n")

    done = make(checkout, TARGETS["uv"], **UNREACHABLE["nothing listens"])

    assert "this is no requirement" in done.stderr
    assert "there is no network" not in done.stderr


@pytest.mark.parametrize(("given", "used"), [({}, None), ({"UV_SYSTEM_CERTS": "false"}, "false")])
def test_system_certificates_are_used(checkout: Path, given: dict[str, str], used: str | None) -> None:
    makefile = (checkout / "Makefile").read_text()
    (checkout / "Makefile").write_text(f"{makefile}\ncertificates:\n\t@echo $$UV_SYSTEM_CERTS\n")
    stores = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
    has_store = any(Path(store).exists() for store in stores)

    done = make(checkout, "certificates", **given)

    assert (used or ("true" if has_store else "false")) == done.stdout.strip()


@pytest.mark.parametrize("tool", TARGETS)
def test_untrusted_certificate_is_one_line(checkout: Path, tool: str, self_signed: str) -> None:
    prepare(checkout, tool)

    done = make(checkout, TARGETS[tool], **dict.fromkeys(WHERE, self_signed))

    line, *makes_own = done.stderr.splitlines()
    assert "csms does not trust the certificate" in line
    assert all(own.startswith("make: ") for own in makes_own)
