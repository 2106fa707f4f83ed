#!/usr/bin/env bash
# Sends a list of pulses with curl, again and again until it is stored. The key makes repeating it safe.
#
#   examples/send.sh [URL]        INGESTOR_API_KEY=ick_... if the ingestor asks for one
set -euo pipefail

url=${1:-http://127.0.0.1:8070/ingest}
# The same for each repetition, another one for each report. A real client keeps it with the report until that is stored.
key=report-$(date -u +%Y%m%dT%H%M%SZ)-$$

headers=(--header 'Content-Type: application/json' --header "Idempotency-Key: $key")
if [ -n "${INGESTOR_API_KEY:-}" ]; then
    headers+=(--header "Authorization: Bearer $INGESTOR_API_KEY")
fi

# --retry repeats after time-outs, 408, 429 and 5xx, not sooner than Retry-After says. --fail-with-body: 4xx ends with 22.
curl --silent --show-error --fail-with-body --max-time 15 --retry 8 --retry-connrefused "${headers[@]}" --data @- "$url" <<'PULSES'
[
  {"tenant_id": "acme", "product_sku": "disk", "used_amount": 0.1, "use_unit": "GB"},
  {"tenant_id": "acme", "product_sku": "link", "used_amount": 20, "use_unit": "MB/sec"}
]
PULSES
