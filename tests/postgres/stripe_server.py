"""A server on this machine that speaks as much of Stripe's protocol as meters need, and can misbehave."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

KEY = "rk_test_TheKeyThatNobodyMayPrint4242"


@dataclass
class Account:
    """What an account holds: values by (customer, meter) and hour; and what goes wrong, request by request.

    A trouble is a status, with a Retry-After of 0 where Stripe sends one, or "cut": the connection breaks in
    the middle of the answer. Values are written as they are, digit by digit.
    """

    customers: list[str]
    meters: list[str]
    values: dict[tuple[str, str], dict[int, Decimal]]
    troubles: list[int | str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def summaries(self, meter: str, query: dict[str, str]) -> list[str]:
        """The summaries of a customer and meter, the newest first, as Stripe lists them."""
        start, end = int(query["start_time"]), int(query["end_time"])
        known = self.values.get((query["customer"], meter), {})
        hours = {hour: value for hour, value in known.items() if start <= hour < end}
        width = {"hour": 3600, "day": 86400}.get(query.get("value_grouping_window", ""))
        if width is None:
            spans = {start: sum(hours.values(), Decimal(0))}
        else:
            spans = {}
            for hour, value in hours.items():
                spans[hour // width * width] = spans.get(hour // width * width, Decimal(0)) + value
        return [
            f'{{"id": "mtrusg_{meter}_{begin}", "object": "billing.meter_event_summary",'
            f' "aggregated_value": {value}, "start_time": {begin},'
            f' "end_time": {end if width is None else begin + width}, "livemode": false, "meter": "{meter}"}}'
            for begin, value in sorted(spans.items(), reverse=True)
        ]


class Handler(BaseHTTPRequestHandler):
    """Answers for the account of its server."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_GET(self) -> None:
        account = self.server.account
        account.requests.append(self.path)
        trouble = account.troubles.pop(0) if account.troubles else None
        given = self.headers["Authorization"].removeprefix("Bearer ")
        if isinstance(trouble, int):
            self.refuse(trouble, "trouble")
        elif given != KEY:
            self.refuse(401, f"Invalid API Key provided: {given[:12]}****{given[-4:]}")
        else:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            self.answer(200, page(url.path, query, account), cut=trouble == "cut")

    def refuse(self, status: int, message: str) -> None:
        self.answer(status, json.dumps({"error": {"message": message, "type": "api_error"}}))

    def answer(self, status: int, body: str, cut: bool = False) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Request-Id", "req_42")
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = cut

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    account: Account


def page(path: str, query: dict[str, str], account: Account) -> str:
    """A page of a list, from the row after starting_after on."""
    match path.split("/")[2:]:
        case ["customers"]:
            rows = [f'{{"id": "{each}", "object": "customer"}}' for each in account.customers]
        case ["billing", "meters"]:
            rows = [f'{{"id": "{each}", "object": "billing.meter"}}' for each in account.meters]
        case ["billing", "meters", meter, "event_summaries"]:
            rows = account.summaries(meter, query)
    ids = [json.loads(each)["id"] for each in rows]
    first = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
    last = first + min(int(query.get("limit", 10)), 100)
    return (
        f'{{"object": "list", "url": "{path}", "has_more": {json.dumps(last < len(rows))},'
        f' "data": [{", ".join(rows[first:last])}]}}'
    )


@contextmanager
def serving(account: Account) -> Iterator[Account]:
    """The account behind an address of this machine."""
    server = Server(("127.0.0.1", 0), Handler)
    server.account = account
    Thread(target=server.serve_forever, daemon=True).start()
    account.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield account
    finally:
        server.shutdown()
        server.server_close()
