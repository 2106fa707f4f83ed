#!/usr/bin/env python3
"""Checks the Grafana files, prometheus.yml and the published ports for mistakes that show only when someone looks.

    check_provisioning.py [RULES_FILE]

RULES_FILE receives the dashboards' queries in the form of recording rules, so that promtool can parse them.
Standard library only; without PyYAML the YAML files are left out, and that is said.
"""

import json
import pathlib
import re
import sys

try:
    import yaml
except ImportError:
    yaml = None

ROOT = pathlib.Path(__file__).resolve().parent.parent
DASHBOARDS = ROOT / "grafana-provisioning" / "dashboards"
DATASOURCE_UID = "prometheus"
GRID_WIDTH = 24
# What Grafana puts in place of its own variables before a query leaves it.
VARIABLES = {"$__rate_interval": "1m", "$__range": "1h", "$instance": ".*"}

problems = []


def check(ok, text):
    if not ok:
        problems.append(text)


def refuse_repeated_keys(pairs):
    keys = [key for key, _ in pairs]
    repeated = sorted({key for key in keys if keys.count(key) > 1})
    if repeated:
        raise ValueError(f"repeated keys {repeated}")
    return dict(pairs)


def all_panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def check_layout(name, panels):
    taken = {}
    for panel in panels:
        grid = panel["gridPos"]
        check(grid["x"] + grid["w"] <= GRID_WIDTH, f"{name}: {panel['title']} is wider than the page")
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                other = taken.setdefault((x, y), panel["title"])
                check(other == panel["title"], f"{name}: {panel['title']} lies over {other}")


def check_dashboard(path):
    """Returns the dashboard's queries."""
    name = path.name
    dashboard = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=refuse_repeated_keys)
    check(dashboard.get("schemaVersion", 0) >= 38, f"{name}: schemaVersion below 38")
    check(bool(dashboard.get("uid")), f"{name}: no uid, so links to it break with each import")
    # A dashboard that is provisioned must not carry an id: it belongs to the database that it came from.
    check(dashboard.get("id") is None, f"{name}: id is set")

    panels = list(all_panels(dashboard))
    ids = [panel["id"] for panel in panels]
    titles = [panel["title"] for panel in panels]
    check(len(set(ids)) == len(ids), f"{name}: panel ids repeat")
    check(len(set(titles)) == len(titles), f"{name}: panel titles repeat")
    check_layout(name, panels)

    queries = []
    for panel in panels:
        if panel["type"] == "row":
            continue
        title = f"{name}: {panel['title']}"
        check(bool(panel.get("description")), f"{title} does not say what it shows")
        check(bool(panel["fieldConfig"]["defaults"].get("unit")), f"{title} has no unit")
        check(panel["datasource"].get("uid") == DATASOURCE_UID, f"{title} names another data source")
        check(bool(panel["targets"]), f"{title} asks nothing")
        refs = [target["refId"] for target in panel["targets"]]
        check(len(set(refs)) == len(refs), f"{title}: refId repeats")
        for target in panel["targets"]:
            check(target["datasource"].get("uid") == DATASOURCE_UID, f"{title} names another data source")
            queries.append(target["expr"])
    return queries


def as_rules(queries):
    rules = []
    for number, query in enumerate(queries):
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)
        check("$" not in query, f"unknown variable in {query}")
        rules.append({"record": f"dashboard:query{number}", "expr": query})
    return {"groups": [{"name": "dashboards", "rules": rules}]}


def check_alerts(name):
    """Whoever is woken must be told what is wrong and what to do."""
    groups = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))["groups"]
    for rule in (rule for group in groups for rule in group["rules"]):
        title = f"{name}: {rule['alert']}"
        check(rule["labels"]["severity"] in ("critical", "warning"), f"{title} is of no known severity")
        check(bool(rule["annotations"].get("summary")), f"{title} does not say what is wrong")
        check(bool(rule["annotations"].get("runbook")), f"{title} does not say what to do")


def check_yaml():
    datasources = yaml.safe_load((ROOT / "grafana-provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    uids = [source["uid"] for source in datasources["datasources"]]
    check(uids == [DATASOURCE_UID], f"data source uids are {uids}")

    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    prometheus = yaml.safe_load((ROOT / "prometheus.yml").read_text(encoding="utf-8"))
    providers = yaml.safe_load((DASHBOARDS / "provider.yml").read_text(encoding="utf-8"))

    interval = prometheus["global"]["scrape_interval"]
    stated = datasources["datasources"][0]["jsonData"]["timeInterval"]
    check(interval == stated, f"prometheus.yml scrapes every {interval}, the data source says {stated}")

    mounts = [volume.split(":") for volume in compose["services"]["grafana"]["volumes"]]
    inside = [target for source, target, *_ in mounts if source == "./grafana-provisioning"]
    folders = [provider["options"]["path"] for provider in providers["providers"]]
    check(folders == [f"{inside[0]}/dashboards"] if inside else False, f"the provider reads {folders}, mounted is {inside}")

    targets = [
        target
        for job in prometheus["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    ]
    targets += [
        name for job in prometheus["scrape_configs"] for group in job.get("dns_sd_configs", []) for name in group["names"]
    ]
    for target in targets:
        service = target.partition(":")[0]
        check(service in compose["services"], f"prometheus.yml scrapes {target}, no service of docker-compose.yml")

    mounted = [tuple(volume.split(":")[:2]) for volume in compose["services"]["prometheus"]["volumes"]]
    for rules in prometheus["rule_files"]:
        check((f"./{rules}", f"/etc/prometheus/{rules}") in mounted, f"docker-compose.yml does not mount {rules}")
        check_alerts(rules)

    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            check(str(port).startswith("127.0.0.1:"), f"docker-compose.yml: {name} publishes {port} beyond this machine")
        image = service.get("image", "name:tag")
        check(re.search(r":(?!latest$)[^/]+$", image), f"docker-compose.yml: {name} does not pin a version of {image}")


def main():
    dashboards = sorted(DASHBOARDS.glob("*.json"))
    check(bool(dashboards), "no dashboard found")
    queries = []
    for path in dashboards:
        try:
            queries += check_dashboard(path)
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{path.name}: {type(error).__name__} {error}")
    rules = as_rules(queries)
    if yaml:
        try:
            check_yaml()
        except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            problems.append(f"YAML: {type(error).__name__} {error}")
    else:
        print("check_provisioning: no PyYAML, the YAML files were not checked")

    for problem in problems:
        print(f"check_provisioning: {problem}", file=sys.stderr)
    if problems:
        return 1
    if len(sys.argv) > 1:
        # JSON is YAML, so promtool reads it.
        pathlib.Path(sys.argv[1]).write_text(json.dumps(rules, indent=1), encoding="utf-8")
    print(f"check_provisioning: {len(dashboards)} dashboard(s), {len(queries)} queries: in order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
