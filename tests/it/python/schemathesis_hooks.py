"""What schemathesis must know that a schema can't say.

An id that is used again with other content is refused, and rightly: each one that is valid is replaced by one that was
never used. A timestamp is refused that is not of these days: each that is valid is replaced by the present. A
correction needs an id, which may stand in three places: one that has none gets one. NDJSON is an array without its punctuation.
"""
import datetime
import json
import re
import unicodedata
import uuid

import schemathesis


def fresh(value, longest):
    try:
        is_valid = isinstance(value, str) and 0 < len(value.encode()) <= longest
    except UnicodeEncodeError:
        return value
    return str(uuid.uuid4()) if is_valid and not any(unicodedata.category(char) == "Cc" for char in value) else value


def of_these_days(value):
    rfc_3339 = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
    is_valid = isinstance(value, str) and re.fullmatch(rfc_3339, value)
    return datetime.datetime.now(datetime.timezone.utc).isoformat() if is_valid else value


def renamed(one):
    if not isinstance(one, dict):
        return one
    one = dict(one)
    for name in ("time", "timestamp"):
        if name in one:
            one[name] = of_these_days(one[name])
    if "specversion" in one and "id" in one:
        one["id"] = fresh(one["id"], 1024)
    if one.get("kind") == "correction" and one.get("pulse_id") is None:
        one["pulse_id"] = "correction"
    if "pulse_id" in one:
        one["pulse_id"] = fresh(one["pulse_id"], 128)
    if isinstance(one.get("data"), dict):
        one["data"] = renamed(one["data"])
    return one


@schemathesis.hook
def before_call(_context, case, _kwargs):
    if isinstance(case.body, list):
        case.body = [renamed(one) for one in case.body]
    elif isinstance(case.body, dict):
        case.body = renamed(case.body)
    for name, value in dict(case.headers or {}).items():
        if name.lower() == "idempotency-key" and isinstance(value, str) and value.isascii() and value == value.strip():
            # A tab may stand in a key, though in no other id.
            case.headers[name] = fresh(value.replace("\t", " "), 128)


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context, value):
    return "\n".join(json.dumps(one) for one in (value if isinstance(value, list) else [value])).encode()
