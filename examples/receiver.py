#!/usr/bin/env python3
"""A receiver that verifies each batch's signature and counts each batch once, with nothing but Python's own library.

SENDER_SIGNING_SECRET=whsec_... python3 examples/receiver.py [PORT] [DATABASE]
"""
import base64, hashlib, hmac, json, os, sqlite3, sys, threading, time
from decimal import Context, Decimal, setcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# One secret, or two while they are exchanged.
KEYS = [base64.b64decode(secret.removeprefix("whsec_")) for secret in os.environ["SENDER_SIGNING_SECRET"].split()]
PORT, DATABASE = (sys.argv[1:] + ["8090", "receiver.sqlite3"][len(sys.argv) - 1:])[:2]
LOCK = threading.Lock()
BOOK = sqlite3.connect(DATABASE, check_same_thread=False, isolation_level=None)
BOOK.execute("CREATE TABLE IF NOT EXISTS batches (id TEXT PRIMARY KEY, content)")
# Corrections and the hours of late pulses stand in rows of their own.
BOOK.execute("CREATE TABLE IF NOT EXISTS totals (tenant, sku, unit, kind, hour, amount, PRIMARY KEY (tenant, sku, unit, kind, hour))")


def is_genuine(headers, body):
    sent_at = headers.get("webhook-timestamp", "0")
    signed = f"{headers.get('webhook-id', '')}.{sent_at}.".encode() + body
    made = ["v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in KEYS]
    fits = any(hmac.compare_digest(ours, theirs) for ours in made for theirs in headers.get("webhook-signature", "").split())
    return fits and abs(time.time() - int(sent_at)) <= 300


def count_once(batch_id, body):
    """Adds the batch and remembers its id in one transaction; a known id adds nothing, and never has other content."""
    setcontext(Context(prec=60))  # of this thread: sums keep all their digits
    content = hashlib.sha256(body).hexdigest()
    with LOCK, BOOK:
        BOOK.execute("BEGIN IMMEDIATE")
        if known := BOOK.execute("SELECT content FROM batches WHERE id = ?", [batch_id]).fetchone():
            if known[0] != content:
                raise ValueError("other content under a known id")
            return
        BOOK.execute("INSERT INTO batches VALUES (?, ?)", [batch_id, content])
        for one in json.loads(body, parse_int=str, parse_float=str):  # numbers as text: a float would round them
            key = [one["tenant_id"], one["product_sku"], one["use_unit"], one.get("kind", "usage"), one.get("period_start", "")]
            row = BOOK.execute("SELECT amount FROM totals WHERE (tenant, sku, unit, kind, hour) = (?, ?, ?, ?, ?)", key).fetchone()
            total = Decimal(row[0] if row else 0) + Decimal(one["used_amount"])
            BOOK.execute("REPLACE INTO totals VALUES (?, ?, ?, ?, ?, ?)", [*key, f"{total:f}"])


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 401  # pauses the sender; nothing is lost by it
        try:
            if is_genuine(self.headers, body):
                count_once(self.headers["webhook-id"], body)
                status = 200
        except (ValueError, LookupError, TypeError, ArithmeticError):
            status = 422  # this batch is refused for good; the sender keeps it for its operator
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


server = ThreadingHTTPServer(("127.0.0.1", int(PORT)), Receiver)
print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
