"""Requests that are answered with an error: the status, one sentence with the place, and no echo of the input."""

from headrace.errors import HeadraceError

BAD_REQUEST = 400
UNAUTHENTICATED = 401
NOT_FOUND = 404
METHOD = 405
SLOW = 408
TOO_LARGE = 413
MEDIA_TYPE = 415
UNFIT = 422
HEADERS_TOO_LARGE = 431
#: Nobody hears it: the client closed the connection before its answer.
GONE = 499
MODEL_FAILED = 500
FULL = 503
LATE = 504

#: What MLflow's error documents call a status.
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    405: "BAD_REQUEST",
    408: "REQUEST_TIMEOUT",
    413: "REQUEST_TOO_LARGE",
    415: "BAD_REQUEST",
    422: "INVALID_PARAMETER_VALUE",
    431: "BAD_REQUEST",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Rejected(HeadraceError):
    """A request is not answered with a prediction.

    Attributes:
        status: the HTTP status.
        retry_after_s: when to come again, where that helps.
    """

    def __init__(self, status: int, fact: str, remedy: str = "", *, retry_after_s: int = 0) -> None:
        super().__init__(fact, remedy)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        return CODES.get(self.status, "INTERNAL_ERROR")

    @property
    def sentence(self) -> str:
        """The fact and the remedy."""
        return f"{self.fact} {self.remedy}".strip()


def too_many_rows(count: int, limit: int) -> Rejected:
    """Return the refusal of a request with more rows than the queue ever holds."""
    return Rejected(TOO_LARGE, f"The request holds {count} rows; the limit is {limit}.", "Send several.")
