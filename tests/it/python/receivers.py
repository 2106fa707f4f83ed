"""Receivers that each break one promise, and one that keeps them all, on one address.

receivers.py SECRET: prints its address. POST /NAME/process is a batch for the receiver of that name, GET /NAME/totals has
what it counted. Whatever a receiver's name says is what is wrong with it.
"""
import collections
import json
import re
import sys
import threading
import time
from decimal import Context, Decimal, setcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(sys.argv[1])


class Book:
    def __init__(self):
        self.lock = threading.Lock()
        self.ids = set()
        self.totals = collections.defaultdict(Decimal)


BOOKS = collections.defaultdict(Book)


def process(name, book, headers, body):
    """The status of a batch's answer."""
    batch_id = headers["webhook-id"]
    if name == "slow":
        time.sleep(1.5)
    if name == "burns-ids":
        known = batch_id in book.ids
        book.ids.add(batch_id)
        if known:
            return 204
    if name != "trusting":
        try:
            WEBHOOK.verify(body, dict(headers))
        except WebhookVerificationError:
            return 401
        except ValueError:
            pass  # well signed, and no JSON
    try:
        aggregates = json.loads(body, parse_float=str, parse_int=str)
    except ValueError:
        return 204 if name == "swallows" else 400
    if name == "strict" and any(len(one) != 4 for one in aggregates):
        return 422
    if name == "ascii" and not all(one["product_sku"].isascii() for one in aggregates):
        return 422
    if name == "small" and len(aggregates) > 100:
        return 413
    key = body if name == "by-content" else batch_id
    if name == "racy":
        known = key in book.ids
        time.sleep(0.3)
    with book.lock:
        if name != "racy":
            known = key in book.ids
        if known and name not in ("forgetful", "burns-ids"):
            return 409 if name == "conflicts" else 204
        book.ids.add(key)
        if name == "overwrites":
            aggregates = {(one["tenant_id"], one["product_sku"], one["use_unit"]): one for one in aggregates}.values()
        for one in aggregates:
            amount = one["used_amount"]
            place = one["tenant_id"], one["product_sku"], one["use_unit"]
            book.totals[place] += Decimal(float(amount)) if name == "floats" else Decimal(amount)
    if name == "fails-late" and not known and not re.search("at once|many", body.decode()):
        return 500
    return 204


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        setcontext(Context(prec=60))
        name = self.path.split("/")[1]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(process(name, BOOKS[name], self.headers, body))

    def do_GET(self):
        book = BOOKS[self.path.split("/")[1]]
        with book.lock:
            rows = [
                {"tenant_id": tenant, "product_sku": sku, "use_unit": unit, "used_amount": f"{amount:.9f}"}
                for (tenant, sku, unit), amount in book.totals.items()
            ]
        self.answer(200, json.dumps(rows).encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
