"""Every error Companion raises on purpose, in one tree.

AssistantError                carries status, type, code, param; edges render OpenAI's error body
  InvalidRequest 400          ContentBlocked 400
  Unauthenticated 401         PermissionDenied 403     NotFound 404     PayloadTooLarge 413
  Conflict 409                Unprocessable 422
  RateLimited 429             QuotaExceeded 429
  UpstreamError 502           ModelUnavailable 503     StorageUnavailable 503     ModelTimeout 504
  IdentityUnavailable 503

Anything else that reaches an edge is a bug: 500 with a request id and no detail.
"""

from typing import Any, ClassVar


class AssistantError(Exception):
    """An error a caller is told about; the message says what to do next."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after = retry_after
        """Seconds until a retry makes sense; rendered as `retry-after` and `retry-after-ms`."""
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """OpenAI's envelope: all four keys, always."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


class InvalidRequest(AssistantError):
    """The payload cannot be honoured; `param` names the part."""

    status = 400
    type = "invalid_request_error"


class ContentBlocked(InvalidRequest):
    """A guardrail refused the content."""

    default_code = "content_policy_violation"


class Unauthenticated(AssistantError):
    status = 401
    type = "invalid_request_error"
    default_code = "invalid_api_key"


class PermissionDenied(AssistantError):
    status = 403
    type = "invalid_request_error"
    default_code = "insufficient_permissions"


class NotFound(AssistantError):
    """Not there, or not the caller's: the same answer."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class PayloadTooLarge(AssistantError):
    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class Conflict(AssistantError):
    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class Unprocessable(AssistantError):
    status = 422
    type = "invalid_request_error"


class RateLimited(AssistantError):
    """Slow down; `retry_after` says how long."""

    status = 429
    type = "requests"
    default_code = "rate_limit_exceeded"


class QuotaExceeded(AssistantError):
    """The allowance is spent."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"


class UpstreamError(AssistantError):
    """The model's server answered something that cannot be used."""

    status = 502
    default_code = "upstream_error"


class ModelUnavailable(AssistantError):
    """The model's server cannot be reached or refuses work for now; trying again makes sense."""

    status = 503
    default_code = "model_unavailable"


class ModelTimeout(AssistantError):
    status = 504
    default_code = "model_timeout"


class StorageUnavailable(AssistantError):
    status = 503
    default_code = "storage_unavailable"


class IdentityUnavailable(AssistantError):
    """The keys that sign-in tokens are checked with cannot be had."""

    status = 503
    default_code = "identity_unavailable"
