"""Who may ask, and what: hosts, origins, the token, sizes, and what pages may load."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


@dataclass(frozen=True)
class Safety:
    """What is allowed.

    Attributes:
        hosts: Names that may stand in the Host header, without port.
        token: What every request must bring; none on the loopback address.
        max_body_bytes: Of a request.
    """

    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    token: str = ""
    max_body_bytes: int = 32 << 20


class Guard:
    """Middleware around the whole application."""

    def __init__(self, app: ASGIApp, safety: Safety) -> None:
        self.app, self.safety = app, safety

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_headers)
