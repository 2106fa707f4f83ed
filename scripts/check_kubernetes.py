#!/usr/bin/env python3
"""Checks what no schema knows of deploy/kubernetes: that its parts fit each other and the program. Needs PyYAML."""

import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy" / "kubernetes"
# Drains may take DRAIN_TIMEOUT and DELIVERY_TIMEOUT beyond the delay.
DRAIN_SECONDS = 25 + 10

problems = []


def check(ok, text):
    if not ok:
        problems.append(text)


def main():
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    resources = [
        resource
        for name in kustomization["resources"]
        for resource in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    ]
    by_kind = {}
    for resource in resources:
        by_kind.setdefault(resource["kind"], []).append(resource)

    [settings] = by_kind["ConfigMap"]
    known = set(re.findall(r"^#([A-Z_]+)=", (ROOT / "example.env").read_text(encoding="utf-8"), re.MULTILINE))
    check(set(settings["data"]) <= known, f"no settings: {sorted(set(settings['data']) - known)}")
    delay = int(settings["data"]["DRAIN_DELAY"].removesuffix("s"))

    deployments = {deployment["metadata"]["name"]: deployment["spec"] for deployment in by_kind["Deployment"]}
    check(len(deployments) == 2, f"the roles are {sorted(deployments)}")
    selectors = [budget["spec"]["selector"]["matchLabels"] for budget in by_kind["PodDisruptionBudget"]]
    for name, spec in deployments.items():
        pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
        [container] = pod["containers"]
        role = labels["app.kubernetes.io/component"]
        check(container["args"] == [role], f"{name} runs {container['args']}")
        check(spec["replicas"] >= 2, f"{name} has no second pod to take over")
        check(spec["selector"]["matchLabels"] == labels, f"{name} does not select its own pods")
        check(selectors.count(labels) == 1, f"{name} has {selectors.count(labels)} disruption budgets")
        check(container["image"] == kustomization["images"][0]["name"], f"{name} has another image")
        check(container["readinessProbe"]["httpGet"]["path"] == "/readyz", f"{name}: readiness is /readyz")
        for probe in ("startupProbe", "livenessProbe"):
            # One that depended on Redis would restart every pod while Redis is away.
            check(container[probe]["httpGet"]["path"] == "/healthz", f"{name}: {probe} is /healthz")
        grace = pod["terminationGracePeriodSeconds"]
        check(grace > delay + DRAIN_SECONDS, f"{name}: a drain may take longer than {grace} s")
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        for setting, value in settings["data"].items():
            if setting.endswith("_FILE"):
                check(str(pathlib.PurePosixPath(value).parent) in mounts, f"{name}: nothing is mounted for {setting}")
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        check(f":{ports['admin']}" in settings["data"]["ADMIN_ADDR"], f"{name}: port admin is not ADMIN_ADDR")
        annotations = spec["template"]["metadata"]["annotations"]
        check(annotations["prometheus.io/port"] == str(ports["admin"]), f"{name}: metrics are not at port admin")

    [service] = by_kind["Service"]
    check(service["spec"]["selector"]["app.kubernetes.io/component"] == "ingest", "the Service leads to senders")

    for problem in problems:
        print(f"check_kubernetes: {problem}", file=sys.stderr)
    if not problems:
        print(f"check_kubernetes: {len(resources)} resources: in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
