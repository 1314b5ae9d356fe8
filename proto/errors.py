"""The one tree of errors.

Owns: every error that a person or a client can meet, with its code, remedy and exit code.
Must not know: who raises it.
Invariant: codes are stable; docs/PROTOCOL.md lists them all.
Source: STYLE "Errors"; sysexits(3) was considered and rejected: our callers need fewer, documented codes.

    HomeostatError
    ├─ UsageError          the caller's words are wrong          exit 2
    │  ├─ ConfigError          a key of the configuration
    │  └─ PlanError            a step of a plan
    ├─ RefusedError        understood, and not accepted          exit 3
    ├─ UnreachableError    no supervisor or no gate answers      exit 4
    ├─ HomeError           the home folder can't be used         exit 7
    │  ├─ HomeLockedError      another supervisor holds it
    │  └─ JournalError         the journal can't be used
    │     ├─ JournalNewerError     written by a newer homeostat
    │     ├─ JournalDamagedError   a record fails its checksum
    │     └─ DiskFullError         no room to write
    ├─ ProtectionError     a required protection is missing      exit 8
    ├─ ProtocolError       bytes that are not a valid message
    │  ├─ MessageTooLargeError
    │  └─ VersionError
    └─ EscalationError     a worker kept crashing                exit 9
"""

from typing import ClassVar


class HomeostatError(Exception):
    """Something that homeostat can name went wrong."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False

    def __init__(self, message: str = "", *, field: str = "", expected: str = "", remedy: str = "") -> None:
        """Take the sentence for a person and, where they exist, the field, what it should be, and the
        mend.
        """
        super().__init__(message or (type(self).__doc__ or "").strip())
        self.field = field
        self.expected = expected
        self.remedy = remedy

    @property
    def message(self) -> str:
        """The sentence alone."""
        return str(self.args[0])

    def diagnostics(self) -> str:
        """Everything a person needs, on one line or two."""
        text = self.message
        if self.expected and self.expected not in text:
            text += f" (expected {self.expected})"
        return f"{text}\n  {self.remedy}" if self.remedy else text


class UsageError(HomeostatError):
    """The request is not well formed."""

    code = "usage"
    exit_code = 2


class ConfigError(UsageError):
    """The configuration can't be used."""

    code = "config"


class PlanError(UsageError):
    """The plan can't be used."""

    code = "plan"


class RefusedError(HomeostatError):
    """The request was understood and refused."""

    code = "refused"
    exit_code = 3


class UnreachableError(HomeostatError):
    """No supervisor answers for this home."""

    code = "unreachable"
    exit_code = 4
    retry = True


class HomeError(HomeostatError):
    """The home folder can't be used."""

    code = "home"
    exit_code = 7


class HomeLockedError(HomeError):
    """Another supervisor is running on this home."""

    code = "home_locked"


class JournalError(HomeError):
    """The journal can't be used."""

    code = "journal"


class JournalNewerError(JournalError):
    """The journal was written by a newer homeostat."""

    code = "journal_newer"


class JournalDamagedError(JournalError):
    """A record of the journal fails its checksum."""

    code = "journal_damaged"


class DiskFullError(JournalError):
    """No room is left to write the journal."""

    code = "disk_full"
    retry = True


class ProtectionError(HomeostatError):
    """A protection that is required can't be given by this kernel."""

    code = "protection"
    exit_code = 8


class ProtocolError(HomeostatError):
    """The bytes are not a message of this protocol."""

    code = "malformed"
    exit_code = 3


class MessageTooLargeError(ProtocolError):
    """The message is larger than its limit."""

    code = "too_large"


class VersionError(ProtocolError):
    """The message has a version that is not spoken here."""

    code = "version"


class EscalationError(HomeostatError):
    """A worker crashed more often than its restart intensity allows."""

    code = "escalation"
    exit_code = 9


COMPANION_HANGS_EXIT = 71
"""With this a worker tells its supervisor that the one it leans on hangs, and must be restarted first."""
