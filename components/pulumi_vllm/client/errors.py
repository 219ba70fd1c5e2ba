"""What can go wrong on the way to a model, as sentences."""


def printable(text: object) -> str:
    """What a server said, on one line, fit for a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())[:300]


class ClientError(Exception):
    """A sentence: what did not work, where, and what to do."""


class UsageError(ClientError):
    """The command line asks for what can't be."""


class Cut(ClientError):  # noqa: N818 - an answer, not a failure of ours
    """The connection ended, or fell silent, in the middle of an answer."""


class Refused(ClientError):  # noqa: N818 - an answer, not a failure of ours
    """An answer other than success; `status` is HTTP's, `said` the server's own message."""

    def __init__(self, sentence: str, status: int, said: str) -> None:
        """Keep the parts."""
        super().__init__(sentence)
        self.status, self.said = status, said
