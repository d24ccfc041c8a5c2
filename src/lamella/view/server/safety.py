"""Who may ask, and what: hosts, origins, the token, sizes, and what pages may load.

A browser runs pages of strangers, and they may ask this address, too. Three things keep them out. A name that a
stranger lets point to 127.0.0.1 (DNS rebinding) is not among `Safety.hosts`. A request from another origin is told by
its Sec-Fetch-Site or Origin header, which pages cannot set. A write needs a header of its own and JSON, which makes
browsers ask first (a CORS preflight), and the answer to that is no.
Sources: Fetch Metadata Request Headers (W3C, 2023), Fetch (WHATWG), RFC 6265bis (cookies), RFC 9110 (421, 413).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "default-src 'self'; object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
WRITE_HEADER = "x-lamella"  # `ask.js` sends it with every write
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # an address may hold the token, once
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",  # for browsers that do not know frame-ancestors
}
_SAFE = ("GET", "HEAD", "OPTIONS")
_OWN = (None, "none", "same-origin")  # Sec-Fetch-Site: not sent, typed by the user, or by a page of the viewer
_JSON = ("application/json", "application/geo+json")
# Starlette decodes %2e, %2f and %00 before it looks for a route; what then leads up, or ends a name early, is no
# address of the viewer.
_STRANGE = re.compile(r"[\x00-\x1f\\]|(^|/)\.\.?(/|$)")


@dataclass(frozen=True)
class Safety:
    """What is allowed.

    Attributes:
        hosts: Names that may stand in the Host header, without port, in lower case.
        any_address: Whether any number (IP address) may stand there, too. No stranger's name is one, so that rebinding
            is refused all the same; for a viewer that listens at all addresses of its machine.
        token: What every request must bring; none on the loopback address.
        max_body_bytes: Of a request.
    """

    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    token: str = ""
    max_body_bytes: int = 32 << 20  # half a million corners of polygons as GeoJSON
    any_address: bool = False

    def is_called(self, host: str) -> bool:
        """Whether a Host header may say so."""
        return host in self.hosts or (self.any_address and _is_number(host))


class TooLargeError(Exception):
    """A body grew beyond the limit while it was read."""


class Guard:
    """Middleware around the whole application."""

    def __init__(self, app: ASGIApp, safety: Safety) -> None:
        self.app, self.safety = app, safety
        # Cookies are shared by all ports of a host: each viewer has its own name for them.
        self._cookie = f"lamella-{hashlib.sha256(safety.token.encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # there are no websockets here
            return
        headers = Headers(scope=scope)
        send = self._with_headers(scope, send)
        refusal = self._refused(scope, headers) or self._without_token(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        await self._bounded(scope, receive, send)

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """Why a request is not even looked at."""
        host = _host(headers)
        if host is None or not self.safety.is_called(host):
            return _no(421, f"This viewer is not called {host or 'that'}; `hosts` names what else it may be called.")
        if _STRANGE.search(scope["path"]):
            return _no(404, "There is no such address.")
        if not _may_ask(scope, headers):
            return _no(403, "Another site asked for this; only the viewer's own pages may.")
        if scope["method"] not in _SAFE:
            if headers.get(WRITE_HEADER) != "1":
                return _no(403, f"Writes need the header {WRITE_HEADER}: 1, which no other site can send.")
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in _JSON:
                return _no(415, f"Writes are JSON, not {kind or 'of no type'}.")
        if int(_digits(headers.get("content-length"))) > self.safety.max_body_bytes:
            return self._too_large()
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """None if the token came; the way on if it came in the address, which then forgets it."""
        if not self.safety.token:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        in_address = [value for name, value in query if name == "token"]
        if any(self._is_token(value) for value in in_address) and scope["method"] in _SAFE:
            # Relative, so that it holds behind any prefix: the same page, without the token.
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            here = "./" + quote(scope["path"].rpartition("/")[2])
            answer = Response(status_code=303, headers={"location": here + (f"?{rest}" if rest else "")})
            secure = scope.get("scheme") == "https"
            answer.set_cookie(self._cookie, self.safety.token, httponly=True, samesite="strict", secure=secure)
            return answer
        brought = [_cookie(headers, self._cookie), headers.get("authorization", "").removeprefix("Bearer ")]
        if any(self._is_token(value) for value in brought):
            return None
        return _no(401, "Open the address that `lamella view` printed, with its token; if you just did, reload.")

    def _is_token(self, text: str) -> bool:
        """In a time that does not tell how many characters are right."""
        return secrets.compare_digest(text.encode("utf-8", "replace"), self.safety.token.encode())

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; its body is counted while it comes, whatever its header said."""
        taken, started = 0, False

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.safety.max_body_bytes:
                raise TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except TooLargeError:
            if started:
                raise
            await self._too_large()(scope, receive, send)
        except Exception:
            if not started:  # the server writes the traceback; the browser gets a line, under the same policy
                await _no(500, "The viewer has a fault; the terminal shows where.")(scope, receive, send)
            raise

    def _too_large(self) -> Response:
        return _no(413, f"That is more than {self.safety.max_body_bytes / 2**20:.3g} MB, the most that is taken.")

    def _with_headers(self, scope: Scope, send: Send) -> Send:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                # Pages and answers change and may be private; tiles and static files say what may be kept.
                headers.setdefault("cache-control", "no-cache" if "/static/" in scope["path"] else "no-store")
            await send(message)

        return with_headers


def _host(headers: Headers) -> str | None:
    """The name in the Host header without its port; None if there is not just one."""
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        return None
    match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d+)?", hosts[0].strip().lower())
    return match[1].rstrip(".") if match else None


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _may_ask(scope: Scope, headers: Headers) -> bool:
    """Whether the viewer's own pages ask, the user, or a program that is no browser."""
    site = headers.get("sec-fetch-site")
    safe = scope["method"] in _SAFE
    if site not in _OWN:
        # A link elsewhere may lead to a page of the viewer, which it cannot read; nothing else may be asked for.
        page = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        return safe and page and "/api/" not in scope["path"]
    origin = headers.get("origin")
    if site is None and origin is not None:  # browsers send no Sec-Fetch-Site to addresses without TLS but loopback
        return urlsplit(origin).netloc.lower() == headers["host"].strip().lower()
    return safe or site != "none"


def _cookie(headers: Headers, name: str) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        for line in headers.getlist("cookie"):
            cookies.load(line)
    except CookieError:  # another program's cookie on the same host
        return ""
    return cookies[name].value if name in cookies else ""


def _digits(text: str | None) -> str:
    return text if text and text.isdecimal() else "0"  # no length, or nonsense: it is counted while it comes


def _no(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status) if status != 401 else PlainTextResponse(why, status)


def host_names(address: str, more: Sequence[str] = ()) -> tuple[str, ...]:
    """`Safety.hosts` for an address that is listened at: itself, the loopback names, and those that the user adds."""
    own = f"[{address}]" if ":" in address else address
    return tuple(dict.fromkeys(name.lower().rstrip(".") for name in (*Safety.hosts, own, *more)))
