"""Sends usage as CloudEvents made by the official SDK: one alone, three at once, one again.

send_events.py URL: prints a line an answer, its status and its body.
"""
import datetime
import sys
import urllib.error
import urllib.request

from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

URL = sys.argv[1]


def event(number, amount):
    return CloudEvent(
        attributes={
            "id": f"reading-{number}",
            "source": "https://meter.example/1",
            "type": "com.example.usage",
            "time": datetime.datetime.now(datetime.timezone.utc),
            "datacontenttype": "application/json",
        },
        data={"tenant_id": "acme", "product_sku": "disk", "used_amount": amount, "use_unit": "KB"},
    )


def post(headers, body):
    with urllib.request.urlopen(urllib.request.Request(URL, body, headers), timeout=20) as answer:
        print(answer.status, answer.read().decode(), flush=True)


alone = to_structured_event(event(0, "1.5"))
post(alone.headers, alone.body)
batch = b"[" + b",".join(JSONFormat().write(event(number, number)) for number in (1, 2, 3)) + b"]"
post({"Content-Type": "application/cloudevents-batch+json"}, batch)
post(alone.headers, alone.body)

# In the binary mode the id would be in a header, which a reader of plain JSON does not look at.
binary = to_binary_event(event(0, "1.5"))
try:
    post(binary.headers, binary.body)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode(), flush=True)
