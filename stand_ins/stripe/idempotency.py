"""Idempotency keys as at Stripe: every later use of a key gets its first answer.

Calls that fail before they are executed (authentication, parameters, a key in use) are not kept.
https://docs.stripe.com/api/idempotent_requests
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

from stand_ins.stripe.records import StripeError

KEPT_SECONDS: Final = 24 * 3600
LONGEST_KEY: Final = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    body: dict[str, Any]
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a key was first used for; `answer` is None while that request runs."""

    path: str
    params: str
    began: int
    answer: Answer | None = None


@dataclass(slots=True, kw_only=True)
class Keys:
    uses: dict[str, Use] = field(default_factory=dict)

    def begin(self, key: str, *, path: str, params: str, now: int) -> Answer | None:
        """The answer to replay, or None for the first request, which then has to finish the key.

        Raises:
            StripeError: 409 while the first request still runs, 400 for another request under the same key.
        """
        if len(key) > LONGEST_KEY:
            raise StripeError(f"Idempotency keys may be at most {LONGEST_KEY} characters.", kind="idempotency_error")
        use = self.uses.get(key)
        if use is None or use.began + KEPT_SECONDS <= now:
            self.uses[key] = Use(path=path, params=params, began=now)
            return None
        hint = f"Try using a key other than '{key}' if you meant to execute a different request."
        if use.path != path:
            raise StripeError(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for "
                f"('{path}' vs '{use.path}'). {hint}",
                kind="idempotency_error",
            )
        if use.params != params:
            raise StripeError(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                + hint,
                kind="idempotency_error",
            )
        if use.answer is None:
            raise StripeError(
                f"There is currently another in-progress request using the idempotency key '{key}'.",
                status=409,
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        return use.answer

    def finish(self, key: str, answer: Answer | None) -> None:
        """Keep the answer for later uses of the key; None frees the key, as if it had never been used."""
        if answer is None:
            del self.uses[key]
            return
        self.uses[key] = replace(self.uses[key], answer=answer)

    def unexpired_uses(self, now: int) -> dict[str, Use]:
        """The keys that have an answer and are not older than a day."""
        return {key: use for key, use in self.uses.items() if use.answer and use.began + KEPT_SECONDS > now}
