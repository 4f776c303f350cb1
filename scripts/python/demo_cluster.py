"""The demo in a cluster: makes a shop with a database, runs the CronJob's Job, and loses the shop.

usage: demo_cluster.py TASK KUBECONFIG [ARGUMENT]...
"""

import json
import sys
import time
import urllib.error
import urllib.request

from demo_app import Api

PASSWORD = "a password of the shop"
SHOP = "/api/v1/namespaces/shop"
KBAK = "/api/v1/namespaces/kbak"
JOBS = "/apis/batch/v1/namespaces/kbak"
SET = "/apis/apps/v1/namespaces/shop/statefulsets"


def until(what, check, tries=600):
    for _ in range(tries):
        found = check()
        if found:
            return found
        time.sleep(0.2)
    sys.exit(f"{what} never came")


def shop(api):
    """A namespace with a PostgreSQL pod, its Secret and a ConfigMap."""
    labels = {"app": "orders"}
    secret = {"secretKeyRef": {"name": "orders-login", "key": "password"}}
    container = {
        "name": "main",
        "image": "kbak.test/postgres:1",
        "imagePullPolicy": "Never",
        "env": [{"name": "POSTGRES_USER", "value": "shop"}, {"name": "POSTGRES_PASSWORD", "valueFrom": secret}],
        "readinessProbe": {"tcpSocket": {"port": 5432}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsUser": 70, "runAsGroup": 70, "fsGroup": 70},
        "containers": [container],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    workload = {"serviceName": "orders", "selector": {"matchLabels": labels}, "template": template}
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    api.call("POST", SHOP + "/secrets", {"metadata": {"name": "orders-login"}, "stringData": {"password": PASSWORD}})
    api.call("POST", SHOP + "/configmaps", {"metadata": {"name": "settings"}, "data": {"colour": "green"}})
    api.call("POST", SHOP + "/services", {"metadata": {"name": "orders"}, "spec": {"selector": labels, "ports": [{"port": 5432}]}})
    api.call("POST", SET, {"metadata": {"name": "orders"}, "spec": workload})


def address(api):
    """Waits for the database, and prints its address in the cluster."""
    until("the database", lambda: api.call("GET", SET + "/orders").get("status", {}).get("readyReplicas"))
    print(api.call("GET", SHOP + "/services/orders")["spec"]["clusterIP"] + ":5432")


def secrets(api, credentials, *files):
    """What a person applies before helm install: kbak's own Secrets, the store's and the database's."""
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "kbak", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    for name in files:
        with open(name, "rb") as file:
            # The API server takes YAML, too.
            request = urllib.request.Request(api.server + KBAK + "/secrets", file.read(), method="POST")
        request.add_header("Content-Type", "application/yaml")
        urllib.request.urlopen(request, context=api.context, timeout=60).close()
    with open(credentials, encoding="utf-8") as file:
        api.call("POST", KBAK + "/secrets", {"metadata": {"name": "kbak-store"}, "stringData": {"credentials": file.read()}})
    api.call("POST", KBAK + "/secrets", {"metadata": {"name": "shop-orders"}, "stringData": {"password": PASSWORD}})


def job(api, name):
    """Runs a Job of the CronJob of backups, and prints the end of its log."""
    template = api.call("GET", JOBS + "/cronjobs/kbak-backup")["spec"]["jobTemplate"]
    api.call("POST", JOBS + "/jobs", {"metadata": {"name": name, **template["metadata"]}, "spec": template["spec"]})

    def ended():
        conditions = api.call("GET", f"{JOBS}/jobs/{name}").get("status", {}).get("conditions", [])
        return [one["type"] for one in conditions if one["status"] == "True" and one["type"] in ("Complete", "Failed")]

    end = until("the end of the Job", ended)
    pods = api.call("GET", f"{KBAK}/pods?labelSelector=job-name%3D{name}")["items"]
    path = f"{KBAK}/pods/{pods[0]['metadata']['name']}/log?tailLines=12"
    log = urllib.request.urlopen(api.server + path, context=api.context, timeout=60).read().decode()
    print("\n".join("   " + line for line in log.splitlines()))
    if end != ["Complete"]:
        sys.exit("the Job failed")


def lose(api):
    """Deletes the namespace, with everything in it."""
    api.call("DELETE", SHOP)

    def gone():
        try:
            api.call("GET", SHOP)
        except urllib.error.HTTPError as error:
            return error.code == 404

    until("the end of the namespace", gone)


def compare(api):
    data = api.call("GET", SHOP + "/configmaps/settings")["data"]
    if data != {"colour": "green"}:
        sys.exit(f"settings differ: {json.dumps(data)}")
    print("   objects: the same")


if __name__ == "__main__":
    {"shop": shop, "address": address, "secrets": secrets, "job": job, "lose": lose, "compare": compare}[sys.argv[1]](
        Api(sys.argv[2]), *sys.argv[3:]
    )
