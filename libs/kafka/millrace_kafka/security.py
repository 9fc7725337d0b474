"""How a broker is spoken to: in the clear or over TLS, as nobody or as a named user. Passwords are shown nowhere.

Not here: what a user may do there. A service needs to read and write the topics of the catalogue, to be in its group,
and to write with its transactional ids, all of which begin with `millrace.`.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from millrace_core.errors import Fatal

Protocol = Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


@dataclass(frozen=True, slots=True)
class Security:
    """One way of connecting. With TLS the broker's certificate is always checked, against `ca` or the system's trust;
    `certificate` and `key` (PEM files) are shown to brokers that want to know their clients by one."""

    protocol: Protocol = "plaintext"
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_tls(self) -> bool:
        return self.protocol in ("ssl", "sasl_ssl")

    @property
    def is_sasl(self) -> bool:
        return self.protocol in ("sasl_plaintext", "sasl_ssl")

    def tls(self) -> ssl.SSLContext | None:
        """The context for this connection; None without TLS. Raises Fatal for files that cannot be used."""
        if not self.is_tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate is not None:
                # Without an answer here OpenSSL would ask a terminal for the password of an encrypted key.
                context.load_cert_chain(self.certificate, self.key, password=lambda: "")
        except OSError as error:
            named = ", ".join(str(file) for file in (self.ca, self.certificate, self.key) if file is not None)
            raise Fatal(f"the TLS files for Kafka cannot be used ({named}): {error}") from None
        return context

    def options(self) -> dict[str, Any]:
        """What every aiokafka client is given. Raises Fatal when it contradicts itself."""
        self._check()
        chosen: dict[str, Any] = {"security_protocol": self.protocol.upper()}
        if (context := self.tls()) is not None:
            chosen["ssl_context"] = context
        if self.is_sasl:
            chosen["sasl_mechanism"] = self.mechanism
            chosen["sasl_plain_username"] = self.username
            chosen["sasl_plain_password"] = self.password
        return chosen

    def _check(self) -> None:
        if self.is_sasl and not (self.username and self.password):
            raise Fatal(
                f"MILLRACE_KAFKA_PROTOCOL is {self.protocol}: set MILLRACE_KAFKA_USERNAME and MILLRACE_KAFKA_PASSWORD"
            )
        if not self.is_sasl and (self.username or self.password):
            raise Fatal(
                f"MILLRACE_KAFKA_PROTOCOL is {self.protocol}, which knows no user: set sasl_ssl or sasl_plaintext, or "
                "leave MILLRACE_KAFKA_USERNAME and MILLRACE_KAFKA_PASSWORD out"
            )
        if not self.is_tls and (self.ca or self.certificate or self.key):
            raise Fatal(
                f"MILLRACE_KAFKA_PROTOCOL is {self.protocol}, which uses no TLS: set ssl or sasl_ssl, or leave "
                "MILLRACE_KAFKA_CA, MILLRACE_KAFKA_CERTIFICATE and MILLRACE_KAFKA_KEY out"
            )
        if self.key is not None and self.certificate is None:
            raise Fatal("MILLRACE_KAFKA_KEY is set without MILLRACE_KAFKA_CERTIFICATE")
