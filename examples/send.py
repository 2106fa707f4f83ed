#!/usr/bin/env python3
"""Sends a list of pulses, again and again until it is stored, with nothing but Python's own library.

python3 examples/send.py [URL]        INGESTOR_API_KEY=ick_... if the ingestor asks for one
"""
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
import uuid

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8070/ingest"
ATTEMPTS = 8


def send(pulses):
    """The ingestor's answer. Each pulse must have a pulse_id: that makes repeating safe."""
    body = json.dumps(pulses).encode()
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("INGESTOR_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    for attempt in range(ATTEMPTS):
        pause = random.uniform(0, min(60, 2**attempt))
        try:
            with urllib.request.urlopen(urllib.request.Request(URL, body, headers), timeout=15) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429, 500, 502, 503, 504):
                raise SystemExit(f"refused for good: {error.code} {error.read().decode()}") from error
            pause = max(pause, float(error.headers.get("Retry-After", 0)))
        except OSError:
            pass  # no answer: stored or not, the ids tell
        time.sleep(pause)
    raise SystemExit("not stored yet: keep the pulses, and send them again later")


# Amounts as text keep every digit. A real client keeps the ids with its readings.
print(send([
    {"tenant_id": "acme", "product_sku": "disk", "used_amount": "0.1", "use_unit": "GB", "pulse_id": str(uuid.uuid4())},
    {"tenant_id": "acme", "product_sku": "link", "used_amount": "20", "use_unit": "MB/sec", "pulse_id": str(uuid.uuid4())},
]))
