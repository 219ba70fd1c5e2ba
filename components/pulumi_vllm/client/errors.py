"""Errors of the endpoint's clients. Each message says where, what is wrong, and what to do."""


def printable(text: object) -> str:
    """Return a server's text as one line that is safe to show on a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in str(text)).split())[:300]


class ClientError(Exception):
    """The request could not be made or answered."""


class UsageError(ClientError):
    """The command line asks for something impossible."""


class AnswerInterrupted(ClientError):  # noqa: N818 - describes the answer
    """The connection ended, or went silent, in the middle of an answer."""


class RequestRefused(ClientError):  # noqa: N818 - describes the answer
    """The server answered with an error: `status` is HTTP's, `server_message` the server's own text."""

    def __init__(self, message: str, status: int, server_message: str) -> None:
        super().__init__(message)
        self.status, self.server_message = status, server_message
