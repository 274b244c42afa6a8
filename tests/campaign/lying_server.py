"""An HTTP server that gives a folder's files and lies about some of them."""

import random
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ENDLESS = 1 << 40
Lie = Callable[["_Handler", bytes], None]


class _Handler(BaseHTTPRequestHandler):
    """`lied_about`: names with this ending get the lie instead of their bytes."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *rest: object, folder: Path, lied_about: str, lie: Lie) -> None:
        self.folder, self.lied_about, self.lie = folder, lied_about, lie
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self.folder / self.path.lstrip("/")
        self.close_connection = True
        if not path.is_file():
            self.send_error(404)
        elif path.name.endswith(self.lied_about):
            self.lie(self, path.read_bytes())
        else:
            self.answer(path.read_bytes())

    def answer(self, body: bytes, status: int = 200, **headers: object) -> None:
        """Headers have their names with `_` for `-`; None leaves one out."""
        self.send_response(status)
        for name, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def trickle(self, piece: bytes, pause_s: float) -> None:
        while True:
            self.wfile.write(piece)
            time.sleep(pause_s)

    def log_message(self, *_: object) -> None:
        pass


def _length(value: object) -> Lie:
    return lambda handler, body: handler.answer(body, Content_Length=value)


def _status(code: int, **headers: object) -> Lie:
    return lambda handler, body: handler.answer(body, code, **headers)


def _never_answer(handler: _Handler, body: bytes) -> None:
    time.sleep(600)


def _stall(handler: _Handler, body: bytes) -> None:
    handler.answer(body[: len(body) // 2], Content_Length=len(body))
    time.sleep(600)


def _drip(handler: _Handler, body: bytes) -> None:
    handler.answer(b"", Content_Length=len(body))
    for byte in body:
        handler.wfile.write(bytes([byte]))
        time.sleep(1)


def _endless_body(handler: _Handler, body: bytes) -> None:
    handler.answer(b"", Content_Length=None)
    handler.trickle(b"[" * (1 << 16), 0)


def _endless_headers(handler: _Handler, body: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    handler.trickle(b"X-More: and more\r\n", 0)


def _no_http(handler: _Handler, body: bytes) -> None:
    handler.wfile.write(b"\x00\xff" * 100)


def _chunks_of_nothing(handler: _Handler, body: bytes) -> None:
    handler.answer(b"zz\r\n" + body, Content_Length=None, Transfer_Encoding="chunked")


def _other_bytes(handler: _Handler, body: bytes) -> None:
    handler.answer(bytes(len(body)))


def _cut(handler: _Handler, body: bytes) -> None:
    handler.answer(body[: len(body) // 2])


LIES: dict[str, Lie] = {
    "a petabyte": _length(10**15),
    "a length with a sign": _length(-1),
    "a length in words": _length("many"),
    "a length of 400 digits": _length("9" * 400),
    "a length too short": _length(10),
    "half of it": _cut,
    "other bytes": _other_bytes,
    "never answers": _never_answer,
    "stalls": _stall,
    "a byte a second": _drip,
    "an endless body": _endless_body,
    "endless headers": _endless_headers,
    "no HTTP": _no_http,
    "chunks without sizes": _chunks_of_nothing,
    "not there": _status(404),
    "refused": _status(403),
    "busy": _status(503, Retry_After=10**9),
    "no such range": _status(416),
    "another range": _status(206, Content_Range="bytes 7-8/9"),
    "a range of a petabyte": _status(206, Content_Range=f"bytes 0-{10**15}/{10**15}"),
    "a range without numbers": _status(206, Content_Range="bytes all"),
    "redirects in circles": _status(302, Location="/index.json"),
    "redirects to a file": _status(302, Location="file:///etc/passwd"),
    "redirects to ftp": _status(302, Location="ftp://127.0.0.1/index.json"),
    "redirects nowhere": _status(302, Location="http://["),
    "a web page": _length(None),
}  # fmt: skip


class LyingServer:
    """Serves `folder` at `url` until it is closed."""

    def __init__(self, folder: Path, lied_about: str, lie: str) -> None:
        handler = partial(_Handler, folder=folder, lied_about=lied_about, lie=LIES[lie])
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.socket.close()


def any_lie(rng: random.Random) -> str:
    return rng.choice(sorted(LIES))
