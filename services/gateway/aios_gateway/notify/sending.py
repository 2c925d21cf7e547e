"""One request to the webhook, as Standard Webhooks has it: signed, bounded, to where it may go and nowhere else."""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import httpx

from aios_core.errors import RetryableError, TerminalError
from aios_gateway.notify.book import Webhook

TIMEOUT_SECONDS: Final = 10.0
MAX_URL_CHARS: Final = 2000
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
PREFIX: Final = "whsec_"
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}

# It logs each URL that it calls, and a webhook's URL may be all that somebody needs to post there.
logging.getLogger("httpx").setLevel(logging.WARNING)


def check_url(url: str, *, allow_private: bool) -> str:
    """The URL. Raises INVALID_ARGUMENT for what can't be called, or must not."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("")
    wrong = ""
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        wrong = f"needs to be at most {MAX_URL_CHARS} printable ASCII characters, without spaces"
    elif parts.scheme not in _PORTS or not host or port == 0:
        wrong = "needs to be like https://example.com/path"
    elif parts.username is not None or parts.password is not None:
        wrong = "must not have a user or password in it; the signature says who sends"
    elif parts.fragment:
        wrong = "must not have a fragment"
    elif parts.scheme == "http" and not allow_private:
        wrong = "needs to be https; plain http is for addresses of your own network (--allow-private)"
    if wrong:
        raise TerminalError("INVALID_ARGUMENT", f"url: it {wrong}.", field="url")
    return url


def check_secret(text: str) -> str:
    """The secret's bytes in base64, of `whsec_…` or of plain text. Raises INVALID_ARGUMENT."""
    try:
        known = text.startswith(PREFIX)
        data = base64.b64decode(text.removeprefix(PREFIX), validate=True) if known else text.encode()
    except ValueError:
        data = b""
    if not MIN_SECRET_BYTES <= len(data) <= MAX_SECRET_BYTES:
        message = (
            f"secret needs {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, as {PREFIX} and base64 or as text."
        )
        raise TerminalError("INVALID_ARGUMENT", message, field="secret")
    return base64.b64encode(data).decode()


def body_of(need: Mapping[str, str], begin_time_ms: int, kind: str = "needs_person") -> bytes:
    """What is posted."""
    when = datetime.fromtimestamp(begin_time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"type": kind, "timestamp": when, "data": need}, ensure_ascii=False).encode()


def signed(webhook: Webhook, name: str, body: bytes, now_ms: int) -> dict[str, str]:
    """The headers that say what it is and prove who sends it."""
    moment = str(now_ms // 1000)
    content = b".".join((name.encode(), moment.encode(), body))
    digest = hmac.new(base64.b64decode(webhook.secret), content, hashlib.sha256).digest()
    return {
        "content-type": "application/json",
        "user-agent": "aios",
        "idempotency-key": name,
        "webhook-id": name,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


async def post(webhook: Webhook, name: str, body: bytes, now_ms: int) -> None:
    """Deliver it: any 2xx is an answer. Raises RetryableError for what may succeed later, TerminalError for the
    rest."""
    parts = urlsplit(webhook.url)
    host = parts.hostname or ""
    address = await address_of(webhook.url, allow_private=webhook.allow_private)
    headers = {**signed(webhook, name, body, now_ms), "host": parts.netloc}
    # The address that was looked at is the one that is called: a name may mean another one a moment later.
    url = httpx.URL(webhook.url).copy_with(host=address)
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            httpx.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                timeout=TIMEOUT_SECONDS,
                verify=parts.scheme == "https",
            ) as client,
            client.stream(
                "POST", url, content=body, headers=headers, extensions={"sni_hostname": host}
            ) as answer,
        ):
            status = answer.status_code  # its content is not read
    except (httpx.HTTPError, OSError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        raise RetryableError("UNAVAILABLE", f"{host} did not answer: {why[:200]}") from None
    if 300 <= status < 400:
        raise TerminalError(
            "INVALID_ARGUMENT", f"{host} redirects ({status}); give the address it redirects to."
        )
    if not 200 <= status < 300:
        raise RetryableError("UNAVAILABLE", f"{host} answered {status}.")


async def address_of(url: str, *, allow_private: bool) -> str:
    """An address of the host of a URL. Raises what `check_url` and `resolve` raise."""
    parts = urlsplit(check_url(url, allow_private=allow_private))
    return await resolve(
        parts.hostname or "", parts.port or _PORTS[parts.scheme], allow_private=allow_private
    )


async def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """An address of a host. Raises UNAVAILABLE, and INVALID_ARGUMENT where one of its addresses is not public."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RetryableError("UNAVAILABLE", f"{host} has no address: {error}") from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not allow_private and not _public(address):
            raise TerminalError(
                "INVALID_ARGUMENT",
                f"url: {host} is {address}, which is not of the public internet; --allow-private permits it.",
                field="url",
            )
    return addresses[0]


def _public(address: str) -> bool:
    """Whether it is of the public internet, also where an IPv4 address stands in an IPv6 one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner is not None:
            return _public(str(inner))
    return found.is_global and not found.is_multicast
