"""The results as a table, JSON and CSV."""

import csv
import json
import statistics

from .contenders import ALL

CASE_TITLES = {
    "pulse": "single pulses, as many as it takes",
    "list": "lists of 100 pulses (JSON)",
    "ndjson": "NDJSON of 1000 pulses, all of different aggregates",
    "tenant": "NDJSON of 1000 pulses of one tenant, 10 aggregates",
    "steady": "a constant rate of single pulses",
}
# What more than this many cores' worth of other work does to a figure can't be told.
NOISE_CORES = 0.15
BASES = ("tiny-http", "nginx-204")


def medians(rows):
    """One row for each contender and case: the median over the rounds of each figure."""
    groups = {}
    for row in rows:
        groups.setdefault((row["case"], row["connections"], row["contender"]), []).append(row)
    merged = []
    for (case, connections, contender), group in groups.items():
        merged.append({"case": case, "connections": connections, "contender": contender, "rounds": len(group)})
        for name in group[0]:
            if isinstance(group[0][name], (int, float)) and name not in ("connections", "round"):
                pick = max if name in ("errors", "unserved_connections", "peak_rss_mb") else statistics.median
                merged[-1][name] = pick(row[name] for row in group)
    for row in merged:
        for base in BASES:
            based_on = [other for other in merged if other["contender"] == base
                        and (other["case"], other["connections"]) == (row["case"], row["connections"])]
            if based_on and based_on[0]["requests_per_second"]:
                row[f"ratio_to_{base}"] = row["requests_per_second"] / based_on[0]["requests_per_second"]
    return merged


COLUMNS = (
    ("req/s", "requests_per_second", "{:,.0f}"), ("pulses/s", "pulses_per_second", "{:,.0f}"),
    ("/tiny", "ratio_to_tiny-http", "{:.2f}"), ("/204", "ratio_to_nginx-204", "{:.2f}"),
    ("p50 ms", "p50_ms", "{:.2f}"), ("p99 ms", "p99_ms", "{:.2f}"), ("p99.9 ms", "p999_ms", "{:.2f}"),
    ("CPU us", "cpu_us_per_request", "{:.1f}"), ("Redis us", "redis_cpu_us_per_request", "{:.1f}"),
    ("client us", "wrk_cpu_us_per_request", "{:.1f}"), ("RSS MB", "peak_rss_mb", "{:.0f}"),
    ("errors", "errors", "{:,.0f}"), ("unserved", "unserved_connections", "{:.0f}"), ("others", "other_cores", "{:.2f}"),
)


def table(merged):
    """For a terminal."""
    labels = {contender.name: contender.label for contender in ALL}
    order = [contender.name for contender in ALL]
    width = max(map(len, labels.values()))
    lines = []
    for case, connections in dict.fromkeys((row["case"], row["connections"]) for row in merged):
        lines.append(f"\n{CASE_TITLES[case]}, {connections} connections")
        lines.append(" " * width + "".join(f"{title:>11}" for title, _, _ in COLUMNS))
        rows = [row for row in merged if (row["case"], row["connections"]) == (case, connections)]
        for row in sorted(rows, key=lambda row: order.index(row["contender"])):
            cells = (form.format(row[name]) if name in row else "-" for _, name, form in COLUMNS)
            lines.append(f"{labels[row['contender']]:<{width}}" + "".join(f"{cell:>11}" for cell in cells))
    lines.append("\n" + LEGEND)
    noisy = sorted({row["contender"] for row in merged if row["other_cores"] > NOISE_CORES})
    if noisy:
        lines.append(f"\nNOT QUIET: other processes took more than {NOISE_CORES} cores while these were measured, so their"
                     f" figures mean little: {', '.join(noisy)}")
    return "\n".join(lines)


LEGEND = """\
Medians over the rounds (RSS, errors and unserved: the worst). The client runs on the same cores and takes what "client us"
says of them for each request; what a server could do by itself is more. /tiny and /204: requests a second in relation to
a bare tiny_http and to nginx return 204. CPU us and Redis us: user and system time for each request. Unserved: connections
whose request lay unread in the kernel the whole time; a server with such has fewer clients, which flatters its latencies.
Others: cores that went to anything else on this machine, interrupts included."""


def write(directory, facts, rows, merged):
    (directory / "results.json").write_text(json.dumps({"facts": facts, "medians": merged, "rounds": rows}, indent=1) + "\n")
    for name, table_rows in (("medians.csv", merged), ("rounds.csv", rows)):
        columns = list(dict.fromkeys(column for row in table_rows for column in row))
        with (directory / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(table_rows)
