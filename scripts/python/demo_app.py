"""The demo's application: makes its objects and files, and later compares the objects.

Speaks to the API server by itself, with nothing but Python's own library, so that the comparison
shares no code with the restore.
"""

import base64
import json
import os
import random
import re
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request

NAMESPACES = ["shop", "blog", "wiki", "mail"]
# What the server writes into every object.
SERVER_OWNED = ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"]
# What controllers write into an object a moment after it is made, in every cluster anew.
CONTROLLER_OWNED = [
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
]


class Api:
    """A kubeconfig's cluster."""

    def __init__(self, kubeconfig):
        with open(kubeconfig, encoding="utf-8") as file:
            text = file.read()

        def field(name):
            # The one of that name: a test cluster's kubeconfig has one cluster and one user.
            return re.search(rf'"?{name}"?:\s*"?([^"\s,]+)', text).group(1)

        self.server = field("server")
        authority = base64.b64decode(field("certificate-authority-data")).decode()
        self.context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile("wb", suffix=".pem") as pem:
            for part in ["client-certificate-data", "client-key-data"]:
                pem.write(base64.b64decode(field(part)))
            pem.flush()
            self.context.load_cert_chain(pem.name)

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, context=self.context, timeout=60) as answer:
            return json.load(answer)


def meta(name, namespace=None, **more):
    metadata = {"name": name, "labels": {"app": "demo"}, **more}
    if namespace:
        metadata["namespace"] = namespace
    return metadata


def pod_template():
    return {
        "metadata": {"labels": {"app": "demo"}},
        "spec": {"containers": [{"name": "main", "image": "registry.invalid/demo:1"}]},
    }


def cluster_objects():
    """Objects without a namespace: (collection path, object)."""
    for name in NAMESPACES:
        yield "/api/v1/namespaces", {"metadata": meta(name)}
    yield "/apis/storage.k8s.io/v1/storageclasses", {"metadata": meta("fast"), "provisioner": "demo.invalid/none"}
    yield "/apis/scheduling.k8s.io/v1/priorityclasses", {"metadata": meta("high"), "value": 1000}
    yield "/apis/networking.k8s.io/v1/ingressclasses", {"metadata": meta("edge"), "spec": {"controller": "demo.invalid/edge"}}
    yield "/apis/node.k8s.io/v1/runtimeclasses", {"metadata": meta("sandbox"), "handler": "sandbox"}
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]
    yield "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": meta("demo-reader"), "rules": rules}
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    crd = {"group": "demo.example", "names": names, "scope": "Namespaced", "versions": versions}
    yield "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {"metadata": meta("widgets.demo.example"), "spec": crd}


def namespace_objects(namespace, numbers):
    """The objects of a namespace: (collection path, object)."""
    core, apps, batch = (f"{root}/namespaces/{namespace}/" for root in ("/api/v1", "/apis/apps/v1", "/apis/batch/v1"))
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/"
    net = f"/apis/networking.k8s.io/v1/namespaces/{namespace}/"
    selector = {"matchLabels": {"app": "demo"}}
    one = {
        core + "limitranges": {"spec": {"limits": [{"type": "Container", "default": {"memory": "64Mi"}}]}},
        core + "resourcequotas": {"spec": {"hard": {"count/pods": "100"}}},
        core + "podtemplates": {"template": pod_template()},
        apps + "daemonsets": {"spec": {"selector": selector, "template": pod_template()}},
        batch + "cronjobs": {
            "spec": {
                "schedule": "0 3 * * *",
                "suspend": True,
                "jobTemplate": {"spec": {"template": {"spec": {**pod_template()["spec"], "restartPolicy": "Never"}}}},
            }
        },
        net + "networkpolicies": {"spec": {"podSelector": {}, "policyTypes": ["Ingress"]}},
        net + "ingresses": {"spec": {"defaultBackend": {"service": {"name": "web-0", "port": {"number": 80}}}}},
        rbac + "roles": {"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]},
        rbac + "rolebindings": {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one"},
            "subjects": [{"kind": "ServiceAccount", "name": "robot-0", "namespace": namespace}],
        },
        f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets": {"spec": {"minAvailable": 1, "selector": selector}},
        f"/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers": {
            "spec": {
                "minReplicas": 1,
                "maxReplicas": 3,
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web-0"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}],
            }
        },
    }
    for path, rest in one.items():
        yield path, {"metadata": meta("one"), **rest}
    for at in range(8):
        yield core + "serviceaccounts", {"metadata": meta(f"robot-{at}")}
        yield core + "services", {"metadata": meta(f"web-{at}"), "spec": {"selector": {"app": "demo"}, "ports": [{"port": 80}]}}
        claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}
        yield core + "persistentvolumeclaims", {"metadata": meta(f"data-{at}"), "spec": claim}
        workload = {"replicas": 0, "selector": selector, "template": pod_template()}
        yield apps + "deployments", {"metadata": meta(f"web-{at}"), "spec": workload}
        yield apps + "statefulsets", {"metadata": meta(f"db-{at}"), "spec": {**workload, "serviceName": "web-0"}}
        yield f"/apis/demo.example/v1/namespaces/{namespace}/widgets", {
            "apiVersion": "demo.example/v1",
            "kind": "Widget",
            "metadata": meta(f"widget-{at}"),
            "spec": {"size": at, "ratio": 0.1, "text": "ä\n" * at},
        }
    for at in range(110):
        text = "".join(numbers.choices("abcdefgh \n", k=400))
        yield core + "configmaps", {"metadata": meta(f"config-{at:03}"), "data": {"text": text}}
        secret = base64.b64encode(numbers.randbytes(100)).decode()
        yield core + "secrets", {"metadata": meta(f"secret-{at:03}"), "data": {"key": secret}}


def comparable(thing):
    """An object without what a server writes anew in every cluster."""
    thing = json.loads(json.dumps(thing))
    thing.pop("status", None)
    metadata = thing["metadata"]
    for field in SERVER_OWNED:
        metadata.pop(field, None)
    annotations = metadata.get("annotations", {})
    for name in CONTROLLER_OWNED:
        annotations.pop(name, None)
    if not annotations:
        metadata.pop("annotations", None)
    spec = thing.get("spec", {})
    if thing["kind"] == "Service":
        for field in ["clusterIP", "clusterIPs"]:
            spec.pop(field, None)
    return thing


def create(kubeconfig, record):
    api, numbers, made = Api(kubeconfig), random.Random(1), []
    objects = list(cluster_objects())
    for namespace in NAMESPACES:
        objects.extend(namespace_objects(namespace, numbers))
    for path, thing in objects:
        for attempt in range(100):
            try:
                answer = api.call("POST", path, thing)
                break
            except urllib.error.HTTPError as error:
                # A definition that is not served yet.
                if error.code != 404 or attempt == 99:
                    sys.exit(f"{path}: {error.code} {error.read().decode()}")
                time.sleep(0.1)
        made.append((path + "/" + thing["metadata"]["name"], comparable(answer)))
    with open(record, "w", encoding="utf-8") as file:
        json.dump(made, file)
    kinds = {thing["kind"] for _, thing in made}
    print(f"   {len(made)} objects of {len(kinds)} kinds")


def compare(kubeconfig, record):
    api, wrong = Api(kubeconfig), []
    with open(record, encoding="utf-8") as file:
        made = json.load(file)
    for path, wanted in made:
        try:
            found = comparable(api.call("GET", path))
        except urllib.error.HTTPError as error:
            wrong.append(f"{path}: {error.code}")
            continue
        if found != wanted:
            wrong.append(f"{path}: {json.dumps(wanted, sort_keys=True)} became {json.dumps(found, sort_keys=True)}")
    if wrong:
        sys.exit(f"{len(wrong)} of {len(made)} objects differ:\n" + "\n".join(wrong[:10]))
    print(f"   {len(made)} objects: all the same")


def files(folder):
    numbers = random.Random(2)
    count = 0
    for at in range(100):
        inner = os.path.join(folder, f"{at % 10}", f"dir-{at:03}")
        os.makedirs(inner)
        for name in range(102):
            path = os.path.join(inner, f"file-{name:04}")
            with open(path, "wb") as file:
                file.write(numbers.randbytes(numbers.randrange(4000)))
            os.chmod(path, numbers.choice([0o600, 0o640, 0o644, 0o755]))
            os.utime(path, ns=(0, 1_600_000_000_000_000_000 + numbers.randrange(10**15)))
            count += 1
        os.symlink("file-0000", os.path.join(inner, "link"))
        os.link(os.path.join(inner, "file-0001"), os.path.join(inner, "twin"))
    print(f"   {count} files")


if __name__ == "__main__":
    {"create": create, "compare": compare, "files": files}[sys.argv[1]](*sys.argv[2:])
