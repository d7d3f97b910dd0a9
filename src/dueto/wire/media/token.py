"""The token of a stream that the dialplan starts: whoever made it knew `media.secret`."""

import hashlib
import hmac


def media_token(secret: str, unique_id: str) -> str:
    """Return what the switch makes of `${md5(SECRET:UUID:SECRET)}`: 32 lower-case hex digits.

    MD5 because it is the one digest that a dialplan can compute. The secret stands on both sides of the id, so nothing
    can be appended to a known token's input; what protects it is the length of the secret.
    """
    text = f"{secret}:{unique_id}:{secret}".encode("utf-8", "surrogateescape")
    return hashlib.md5(text, usedforsecurity=False).hexdigest()  # so that a FIPS build of OpenSSL lets it pass


def token_is_valid(secret: str, unique_id: str, token: str) -> bool:
    """Whether `token` is this call's. Takes the same time wherever the two differ; an empty secret fits nothing."""
    expected = media_token(secret, unique_id).encode()
    return bool(secret) and hmac.compare_digest(expected, token.encode("utf-8", "replace"))
