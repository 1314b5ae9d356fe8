"""Whom TLS trusts: the system's authorities, read again when their file is another.

Owns: the one TLS context of this process.
Must not know: hosts, requests.
Invariant: certificates and names are always checked; there is no way to switch that off.
Source: ssl.create_default_context; SSL_CERT_FILE and SSL_CERT_DIR as OpenSSL has them.
"""

from __future__ import annotations

import os
import ssl
import threading


class Trust:
    """Used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context of now. Raises OSError for a certificate store that is none."""
        with self._lock:
            stamp = _stamp()
            if self._context is None or stamp != self._stamp:
                self._context, self._stamp = _made(), stamp
            return self._context


def _made() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _stamp() -> tuple[int, int] | None:
    """What tells whether the file of authorities is still the one that was read."""
    paths = ssl.get_default_verify_paths()
    try:
        found = os.stat(paths.cafile or paths.openssl_cafile)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
