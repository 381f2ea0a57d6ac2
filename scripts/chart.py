"""Checks of charts/catchment that need more than one program; scripts/chart.sh calls it.

  chart.py schemas MODULES DIR          JSON Schemas of Kubernetes and of the CRDs, for kubeconform, into DIR
  chart.py lint SCHEMAS                 template, schemas, policies and wrong values, for every ci/*-values.yaml and example
  chart.py test MODULES KUBECONFIG PORT install, upgrade, rollback, uninstall on a real API

What is printed first on a line that begins with FAIL is wrong; the exit code is then 1.
"""
import copy, glob, json, os, ssl, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request

import yaml

CHART = "charts/catchment"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LOADER.add_constructor("tag:yaml.org,2002:value", lambda loader, node: node.value) # a bare =
VERSIONS = ["1.33.0", "1.35.0", "1.37.0"]
SERVICES = ["receiver", "processor", "archiver"]
failures = []


def fail(text):
    failures.append(text)
    print("FAIL " + text, flush=True)


def run(*args, ok=True, **kw):
    r = subprocess.run(args, capture_output=True, text=True, **kw)
    if ok and r.returncode:
        raise SystemExit(f"{' '.join(args)}: {r.stdout[-3000:]}{r.stderr[-3000:]}")
    return r


def helm(*args, **kw):
    return run("helm", *args, **kw)


def template(values, *more, version=VERSIONS[-1], ok=True, release="ci"):
    return helm("template", release, CHART, "--kube-version", version, "-f", values, *more, ok=ok)


def values_files():
    return sorted(glob.glob(CHART + "/ci/*-values.yaml"))


# --- schemas ---------------------------------------------------------------------------------------------------------

KINDS = {"configmap-v1", "pod-v1", "service-v1", "serviceaccount-v1", "secret-v1", "job-batch-v1", "deployment-apps-v1", "ingress-networking-v1",
         "networkpolicy-networking-v1", "horizontalpodautoscaler-autoscaling-v2", "poddisruptionbudget-policy-v1"}


def closed(schema):
    """An OpenAPI schema of a CRD as a JSON Schema in which an unknown field is wrong."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    s = {k: closed(v) for k, v in schema.items() if not k.startswith("x-kubernetes-") or k in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string")}
    if s.pop("x-kubernetes-int-or-string", False):
        s.pop("type", None)
        s.pop("anyOf", None)
        s["type"] = ["integer", "string"]
    preserve = s.pop("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(s.get("properties"), dict) and "additionalProperties" not in s and not preserve:
        s["additionalProperties"] = False
    return s


def schemas(modules, target):
    """kubeconform's schemas. Those of Kubernetes come in one wheel; its references lead to one file of definitions."""
    import kubernetes_validate
    base = os.path.join(os.path.dirname(kubernetes_validate.__file__), "kubernetes-json-schema")
    ours = crds(modules)
    for version in VERSIONS:
        source, to = f"{base}/v{version}-local-strict", f"{target}/v{version}"
        os.makedirs(to, exist_ok=True)
        defs = json.load(open(source + "/_definitions.json"))["$defs"]
        for path in glob.glob(source + "/*.json"):
            name = os.path.basename(path)[:-5]
            if name not in KINDS:
                continue
            s = json.load(open(path))
            s.pop("$id", None)
            used, todo = {}, json.dumps(s)
            while todo: # what it refers to, and what that refers to
                names = {r.split('"')[0] for r in todo.split("#/$defs/")[1:]} - used.keys()
                used.update((n, defs[n]) for n in names)
                todo = json.dumps([defs[n] for n in names]) if names else ""
            s["$defs"] = used
            text = json.dumps(s).replace("/api/_definitions.json#", "#")
            open(f"{to}/{name}.json", "w").write(text)
        for crd in ours:
            for v in crd["spec"]["versions"]:
                s = closed(v["schema"]["openAPIV3Schema"])
                s["properties"].update({"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}})
                name = f"{crd['spec']['names']['kind'].lower()}-{crd['spec']['group'].split('.')[0]}-{v['name']}.json"
                json.dump(s, open(f"{to}/{name}", "w"))


def crds(modules):
    """The CRDs of the listed Go modules (module version folder, a line each) that the chart has objects of."""
    found = []
    for line in open(modules):
        for path in glob.glob(line.strip() + "/*.yaml"):
            if not any(p in path for p in ("podmonitors", "servicemonitors", "prometheusrules", "scaledobjects", "_triggerauth", "httproutes", "_clusters.")):
                continue
            for doc in yaml.load_all(open(path), Loader=LOADER):
                if doc and doc["kind"] == "CustomResourceDefinition" and doc["spec"]["names"]["kind"] in (
                        "PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication", "HTTPRoute", "Cluster"):
                    found.append(doc)
    return found


def kubeconform(text, directory, version):
    location = directory + "/v" + version + "/{{.ResourceKind}}{{.KindSuffix}}.json"
    return run("kubeconform", "-strict", "-summary", "-kubernetes-version", version, "-schema-location", location, "-", ok=False, input=text)


# --- policies --------------------------------------------------------------------------------------------------------

def pod_of(o):
    if o["kind"] == "Pod":
        return o["spec"]
    return o["spec"]["template"]["spec"] if o["kind"] in ("Deployment", "Job") else None


def policies(objects):
    """Yields what a platform team would refuse. The rules of Pod Security's level restricted, and a few more."""
    for o in objects:
        where = f"{o['kind']}/{o['metadata']['name']}"
        if len(o["metadata"]["name"]) > 63:
            yield f"{where}: the name has more than 63 characters"
        for k, v in {**o["metadata"].get("labels", {})}.items():
            if len(str(v)) > 63 or not isinstance(v, str):
                yield f"{where}: label {k} is no text of up to 63 characters"
        pod = pod_of(o)
        if pod is None:
            continue
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{where}: a token is mounted"
        if pod.get("enableServiceLinks") is not False:
            yield f"{where}: service links would be settings of ours"
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(key):
                yield f"{where}: {key}"
        context = pod.get("securityContext", {})
        if not context.get("runAsNonRoot") or context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{where}: the pod's securityContext is not restricted"
        for volume in pod.get("volumes", []):
            if not {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"} & volume.keys():
                yield f"{where}: volume {volume['name']} is of a kind that is not allowed"
        mounted = {v["name"] for v in pod.get("volumes", [])}
        for c in pod.get("initContainers", []) + pod["containers"]:
            at = f"{where} {c['name']}"
            s = c.get("securityContext", {})
            if s.get("allowPrivilegeEscalation") is not False or s.get("privileged") or s.get("capabilities", {}) != {"drop": ["ALL"]} or s.get("readOnlyRootFilesystem") is not True:
                yield f"{at}: the securityContext is not restricted"
            image = c["image"]
            if "@sha256:" not in image and (":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest")):
                yield f"{at}: image {image} has no fixed tag"
            r = c.get("resources", {})
            for kind in ("requests", "limits"):
                for what in ("cpu", "memory"):
                    if what not in r.get(kind, {}):
                        yield f"{at}: no {kind} of {what}"
            for m in c.get("volumeMounts", []):
                if m["name"] not in mounted:
                    yield f"{at}: there is no volume {m['name']}"
            names = [e["name"] for e in c.get("env", [])]
            if len(names) != len(set(names)):
                yield f"{at}: a variable is given twice"
        if o["kind"] == "Deployment":
            for c in pod["containers"]:
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    if probe not in c:
                        yield f"{where} {c['name']}: no {probe}"
            if "checksum/config" not in o["spec"]["template"]["metadata"]["annotations"]:
                yield f"{where}: a change of the configuration does not roll"
            selector, labels = o["spec"]["selector"]["matchLabels"], o["spec"]["template"]["metadata"]["labels"]
            if not selector.items() <= labels.items():
                yield f"{where}: the selector does not match its own pods"
    yield from references(objects)


def references(objects):
    """Whatever an object names must be there: the Service of an Ingress, the Deployment of an autoscaler, pods of a selector."""
    names = {(o["kind"], o["metadata"]["name"]) for o in objects}
    pods = [o["spec"]["template"] for o in objects if o["kind"] in ("Deployment", "Job")] + [o for o in objects if o["kind"] == "Pod"]
    for o in objects:
        where, spec = f"{o['kind']}/{o['metadata']['name']}", o.get("spec", {})
        wants = []
        if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject"):
            wants.append(("Deployment", spec["scaleTargetRef"]["name"]))
        if o["kind"] == "ScaledObject":
            wants += [("TriggerAuthentication", t["authenticationRef"]["name"]) for t in spec["triggers"] if "authenticationRef" in t]
        if o["kind"] == "Ingress":
            wants += [("Service", p["backend"]["service"]["name"]) for r in spec["rules"] for p in r["http"]["paths"]]
        if o["kind"] == "HTTPRoute":
            wants += [("Service", b["name"]) for r in spec["rules"] for b in r["backendRefs"]]
        if o["kind"] == "Deployment" and any(n == ("ServiceAccount", "") for n in names):
            wants.append(("ServiceAccount", spec["template"]["spec"]["serviceAccountName"]))
        for volume in (pod_of(o) or {}).get("volumes", []):
            wants += [("ConfigMap", s["configMap"]["name"]) for s in volume.get("projected", {}).get("sources", []) if "configMap" in s]
        for w in wants:
            if w not in names:
                yield f"{where}: there is no {'/'.join(w)}"
        selector = None
        if o["kind"] == "Service":
            selector = spec["selector"]
        elif o["kind"] == "PodDisruptionBudget":
            selector = spec["selector"]["matchLabels"]
        elif o["kind"] == "NetworkPolicy":
            selector = spec["podSelector"]["matchLabels"]
        if selector and not any(selector.items() <= p["metadata"]["labels"].items() for p in pods):
            yield f"{where}: no pod of the chart is selected"


# --- lint ------------------------------------------------------------------------------------------------------------

# What a user may write wrong: arguments, and what the answer must say.
GOOD = CHART + "/ci/minimal-values.yaml"
FULL = CHART + "/ci/production-values.yaml"
WRONG = [
    (GOOD, ["--set", "receivr.replicaCount=3"], "additional properties 'receivr' not allowed"),
    (GOOD, ["--set", "receiver.replicas=3"], "additional properties 'replicas' not allowed"),
    (GOOD, ["--set", "config.kafka.broker=x:1"], "at '/config/kafka': additional properties 'broker' not allowed"),
    (GOOD, ["--set", "config.ingres.listen=:1"], "at '/config': additional properties 'ingres' not allowed"),
    (GOOD, ["--set", "config.sources.a.provider=github,config.sources.a.secret=x"], "at '/config/sources/a': additional properties 'secret' not allowed"),
    (GOOD, ["--set", "config.operations[0].name=a"], "/config/operations/0"),
    (GOOD, ["--set-string", "receiver.replicaCount=many"], "at '/receiver/replicaCount': got string, want integer"),
    (GOOD, ["--set", "receiver.replicaCount=-1"], "at '/receiver/replicaCount': minimum"),
    (GOOD, ["--set", "topics.mode=job"], "at '/topics/mode': value must be one of 'initContainer', 'hook', 'none'"),
    (GOOD, ["--set", "image.tag=latest"], "image.tag: latest is another image tomorrow"),
    (GOOD, ["--set", "processor.image.digest=sha256:abc"], "at '/processor/image/digest'"),
    (GOOD, ["--set", "receiver.resources.limits.memory=lots"], "at '/receiver/resources/limits/memory'"),
    (GOOD, ["--set", "receiver.resources.limit.memory=1Gi"], "additional properties 'limit' not allowed"),
    (CHART + "/values.yaml", [], "config.kafka.brokers: name some brokers"),
    (CHART + "/values.yaml", [], "config.archive.url: the archiver needs a place"),
    (GOOD, ["--set", "secrets.postgres.existingSecret="], "secrets.postgres.existingSecret: the processor needs a database"),
    (GOOD, ["--set", "processor.autoscaling.enabled=true,processor.scaledObject.enabled=true"], "processor: autoscaling.enabled and scaledObject.enabled exclude one another"),
    (GOOD, ["--set", "receiver.scaledObject.enabled=true"], "receiver.scaledObject.triggers: expected at least one"),
    (GOOD, ["--set", "archiver.scaledObject.enabled=true,archiver.scaledObject.minReplicaCount=0"], "archiver.scaledObject.minReplicaCount: expected 1 at least"),
    (GOOD, ["--set", "processor.scaledObject.enabled=true,config.kafka.partitions=1"], "minReplicaCount 2 is more than maxReplicaCount"),
    (GOOD, ["--set", "receiver.autoscaling.enabled=true,receiver.autoscaling.minReplicas=20"], "minReplicas 20 is more than maxReplicas 10"),
    (GOOD, ["--set", "metrics.podMonitor.enabled=true,metrics.serviceMonitor.enabled=true"], "everything would be counted twice"),
    (GOOD, ["--set", "receiver.podDisruptionBudget.minAvailable=1"], "maxUnavailable and minAvailable exclude one another"),
    (GOOD, ["--set", "archiver.terminationGracePeriodSeconds=20"], "archiver.terminationGracePeriodSeconds: 20 is less than the 40 s"),
    (GOOD, ["--set", "config.ingress.drain_delay=1h"], None),
    (GOOD, ["--set", "config.ingress.drain_delay=soon"], "at '/config/ingress/drain_delay'"),
    (GOOD, ["--set-string", "config.ingress.drain_delay=${DELAY}"], "config.ingress.drain_delay: the chart must know how long this is"),
    (GOOD, ["--set", "config.processor.ops_listen=127.0.0.1:9091"], "config.processor.ops_listen: the kubelet asks the pod's own address"),
    (GOOD, ["--set", "config.ingress.listen=8080"], "at '/config/ingress/listen': got number, want string"),
    (GOOD, ["--set-string", "config.ingress.listen=8080"], "config.ingress.listen: expected host:port"),
    (GOOD, ["--set", "config.ingress.listen=:99999"], "config.ingress.listen: expected host:port"),
    (GOOD, ["--set", "ingress.enabled=true"], "ingress.hosts: expected at least one host name"),
    (GOOD, ["--set", "httpRoute.enabled=true"], "httpRoute.parentRefs: expected the Gateway"),
    (GOOD, ["--set", "receiver.enabled=false,httpRoute.enabled=true,httpRoute.parentRefs[0].name=g"], "leads to the receiver, which is off"),
    (GOOD, ["--set", "config.sources.a.provider=github,config.sources.a.secrets[0]=hunter2"], "config.sources.a.secrets[0]: the secret itself would stand in a ConfigMap"),
    (GOOD, ["--set", "config.sources.a.provider=github,config.sources.a.secrets[0].value=hunter2"], "config.sources.a.secrets[0]: the secret itself would stand in a ConfigMap"),
    (GOOD, ["--set", "config.sources.a.provider=github,config.sources.a.secrets[0].file=sources/a/x"], "there is no file sources/a/x"),
    (GOOD, ["--set", "config.postgres.url=postgres://u:p@h/d"], "config.postgres.url: the password in it would stand in a ConfigMap"),
    (GOOD, ["--set", "config.kafka.sasl.mechanism=plain,config.kafka.sasl.password=p"], "config.kafka.sasl.password: the secret itself"),
    (GOOD, ["--set", "config.kafka.embedded=true"], "embedded is for `catchment up`"),
    (GOOD, ["--set", "config.ingress.dedup.store=redis"], "secrets.dedup.existingSecret: config.ingress.dedup.store is redis"),
    (GOOD, ["--set", "tests.source=none"], 'tests.source: there is no source "none"'),
    (GOOD, ["--set", "metrics.prometheusRule.enabled=true,metrics.prometheusRule.disabled[0]=CatchmentDwn"], 'there is no alert "CatchmentDwn"'),
    (GOOD, ["--set", "secrets.sources.a.existingSecret=x"], "at '/secrets/sources/a': missing property 'keys'"),
    (GOOD, ["--set", "fullnameOverride=Upper_Case"], "at '/fullnameOverride'"),
    (GOOD, ["--set", "commonLabels.a=" + "x" * 64], "at '/commonLabels/a'"),
    (GOOD, ["--set-string", "commonLabels.a=x y"], "at '/commonLabels/a'"),
    (GOOD, ["--set", "receiver=null"], "missing property 'receiver'"),
    (GOOD, ["--set", "secrets.kafka=null"], "at '/secrets': missing property 'kafka'"),
    (GOOD, ["--set", "config=null"], "missing property 'config'"),
    (GOOD, ["--set", "config.ingress=null"], "at '/config': missing property 'ingress'"),
    (GOOD, ["--set", "config.processor.ops_listen=null"], "at '/config/processor': missing property 'ops_listen'"),
    (GOOD, ["--set", "networkPolicy.enabled=true,config.kafka.brokers[0]=nocolon"], "config.kafka.brokers (or networkPolicy.kafka.ports): expected host:port"),
    (GOOD, ["--set-json", 'secrets.sources={"x":{"existingSecret":"a","keys":["../b"]}}'], "at '/secrets/sources/x/keys/0'"),
    (FULL, ["--set", "config.kafka.sasl.mechanism=oauthbearer"], "processor.scaledObject.authenticationRef"),
    (GOOD, ["--kube-version", "1.29.0"], "incompatible with Kubernetes v1.29.0"),
]

# Misspelled fields in what is rendered: kubeconform must find each.
MISSPELLED = [("minReplicaCount:", "minReplicas:"), ("livenessProbe:", "livenesProbe:"), ("interval: 15s", "intervall: 15s"), ("podSelector:", "podSelectr:"),
              ("parentRefs:", "parentRef:"), ("maxUnavailable: 1\n", "maxUnavailble: 1\n"), ("averageUtilization", "averageUtilisation"), ("automountServiceAccountToken", "autoMountServiceAccountToken")]


def documents(text):
    return [d for d in yaml.load_all(text, Loader=LOADER) if d]


def lint(directory):
    helm("lint", "--strict", CHART, "--kube-version", VERSIONS[-1])
    rendered = {}
    for values in values_files() + sorted(glob.glob("docs/deploy/kubernetes/values-*.yaml")):
        name = os.path.basename(values)
        r = helm("lint", "--strict", CHART, "--kube-version", VERSIONS[-1], "-f", values, ok=False)
        if r.returncode:
            fail(f"helm lint {name}: {r.stdout}{r.stderr}")
        for version in VERSIONS:
            r = template(values, version=version, ok=False)
            if r.returncode:
                fail(f"helm template {name}: {r.stderr}")
                continue
            k = kubeconform(r.stdout, directory, version)
            if k.returncode:
                fail(f"kubeconform {name} {version}: {k.stdout}{k.stderr}")
        text = rendered[name] = template(values, ok=False).stdout
        objects = documents(text)
        for found in policies(objects):
            fail(f"policy {name}: {found}")
        seen = [(o["kind"], o["metadata"]["name"]) for o in objects]
        for twice in {s for s in seen if seen.count(s) > 1}:
            fail(f"{name}: {'/'.join(twice)} is there twice")
        print(f"ok   {name}: {len(objects)} objects, Kubernetes {', '.join(VERSIONS)}", flush=True)
    for release in ("r" * 53, "catchment", "a"):
        for found in policies(documents(template(FULL, release=release).stdout)):
            fail(f"policy, release {release}: {found}")
    everything = "\n---\n".join(rendered.values())
    for right, wrong in MISSPELLED:
        if right not in everything:
            fail(f"misspelled {wrong}: no {right} is rendered any more")
        elif kubeconform(everything.replace(right, wrong, 1), directory, VERSIONS[-1]).returncode == 0:
            fail(f"misspelled {wrong} was not found")
    for values, args, says in WRONG:
        r = template(values, *args, ok=False)
        if says is None and r.returncode or says is not None and (r.returncode == 0 or says not in r.stderr):
            fail(f"{' '.join(args)}: expected {says!r}, found {r.stderr or 'no error'}")
    print(f"ok   {len(WRONG)} wrong values are refused or judged, {len(MISSPELLED)} misspelled fields are found")
    broken_policies(documents(rendered["production-values.yaml"]))


def broken_policies(objects):
    """Each policy must find what it is for."""
    def broken(change, says):
        o = copy.deepcopy(objects)
        d = next(x for x in o if x["kind"] == "Deployment")
        change(d["spec"]["template"]["spec"], d)
        if not any(says in found for found in policies(o)):
            fail(f"the policy about {says!r} finds nothing")

    def first(p):
        return p["containers"][0]
    broken(lambda p, d: first(p).update(image="x/y:latest"), "no fixed tag")
    broken(lambda p, d: first(p).update(image="registry:5000/y"), "no fixed tag")
    broken(lambda p, d: first(p)["resources"].pop("limits"), "no limits of memory")
    broken(lambda p, d: first(p).pop("livenessProbe"), "no livenessProbe")
    broken(lambda p, d: first(p)["securityContext"].update(privileged=True), "not restricted")
    broken(lambda p, d: p["securityContext"].pop("seccompProfile"), "not restricted")
    broken(lambda p, d: p["volumes"].append({"name": "host", "hostPath": {"path": "/"}}), "not allowed")
    broken(lambda p, d: p.update(automountServiceAccountToken=True), "a token is mounted")
    broken(lambda p, d: d["metadata"].update(name="other"), "there is no Deployment/")


# --- test ------------------------------------------------------------------------------------------------------------

class API:
    def __init__(self, port):
        self.base = f"https://127.0.0.1:{port}"
        self.ssl = ssl.create_default_context()
        self.ssl.check_hostname, self.ssl.verify_mode = False, ssl.CERT_NONE

    def call(self, method, path, body=None, kind="application/json"):
        data = None if body is None else json.dumps(body).encode()
        req = urllib.request.Request(self.base + path, data, {"Authorization": "Bearer admintoken", "Content-Type": kind}, method=method)
        try:
            with urllib.request.urlopen(req, context=self.ssl, timeout=60) as resp:
                return resp.status, json.load(resp)
        except urllib.error.HTTPError as e:
            return e.code, json.load(e)

    def list(self, path):
        return self.call("GET", path)[1].get("items", [])


def until(what, f, seconds=120):
    end = time.monotonic() + seconds
    while True:
        got = f()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.3)


def balancer(api, stop):
    """Gives Services of type LoadBalancer an address, as a cloud would."""
    while not stop.wait(0.5):
        for s in api.list("/api/v1/services"):
            if s["spec"]["type"] == "LoadBalancer" and not s["status"]["loadBalancer"]:
                path = f"/api/v1/namespaces/{s['metadata']['namespace']}/services/{s['metadata']['name']}/status"
                api.call("PATCH", path, {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}, "application/merge-patch+json")


def install(api, values, number):
    ns, release = f"ci-{number}", "ci"
    name = os.path.basename(values)
    code, answer = api.call("POST", "/api/v1/namespaces", {"metadata": {"name": ns, "labels": RESTRICTED}})
    if code >= 300:
        raise AssertionError(answer)
    here = ["-n", ns, "--wait", "--timeout", "5m"]
    soon = [a for c in SERVICES for a in ("--set", c + ".minReadySeconds=0")]
    deployments = lambda: {d["metadata"]["name"]: d for d in api.list(f"/apis/apps/v1/namespaces/{ns}/deployments")}

    def pods():
        alive = [p for p in api.list(f"/api/v1/namespaces/{ns}/pods") if not p["metadata"].get("deletionTimestamp") and p["status"].get("phase") == "Running"]
        return {p["metadata"]["name"] for p in alive if "pod-template-hash" in p["metadata"]["labels"]}

    def settled(d):
        return all(x["status"].get("observedGeneration") == x["metadata"]["generation"] and x["status"].get("replicas", 0) == x["status"].get("updatedReplicas", 0) == x["status"].get("readyReplicas", 0) == x["spec"]["replicas"] for x in d.values())

    def floors():
        """Autoscalers have brought their Deployments to the least number."""
        d = deployments()
        return all(d[h["spec"]["scaleTargetRef"]["name"]]["spec"]["replicas"] >= h["spec"]["minReplicas"] for h in api.list(f"/apis/autoscaling/v2/namespaces/{ns}/horizontalpodautoscalers"))

    def current():
        until("the autoscalers look", floors)
        until("the pods settle", lambda: settled(deployments()))
        want = sum(d["spec"]["replicas"] for d in deployments().values())
        return until(f"{want} pods", lambda: (lambda p: (p, ) if len(p) == want else None)(pods()))[0]

    def hashes():
        return {n: d["spec"]["template"]["metadata"]["annotations"]["checksum/config"] for n, d in deployments().items()}

    start = time.monotonic()
    helm("install", release, CHART, "-f", values, *soon, *here)
    first, before = current(), hashes()
    helm("upgrade", release, CHART, "-f", values, *soon, *here)
    if current() != first:
        fail(f"{name}: an upgrade that changes nothing has rolled pods")
    helm("upgrade", release, CHART, "-f", values, "--set", "config.telemetry.log_level=warn", *soon, *here)
    second, after = current(), hashes()
    if second & first or any(before[n] == after[n] for n in before):
        fail(f"{name}: a changed configuration has not rolled every pod")
    helm("rollback", release, "1", *here)
    third = current()
    if third & second or hashes() != before:
        fail(f"{name}: a rollback has not brought back what was")
    events = [e for e in api.list(f"/api/v1/namespaces/{ns}/events") if "violates PodSecurity" in e.get("message", "")]
    if events:
        fail(f"{name}: {events[0]['message']}")
    budgets(api, ns, name)
    helm("uninstall", release, *here)
    left = [f"{k}/{o['metadata']['name']}" for k in ("api/v1/namespaces/%s/services", "api/v1/namespaces/%s/serviceaccounts", "apis/apps/v1/namespaces/%s/deployments", "apis/networking.k8s.io/v1/namespaces/%s/networkpolicies",
            "apis/policy/v1/namespaces/%s/poddisruptionbudgets", "apis/keda.sh/v1alpha1/namespaces/%s/scaledobjects", "apis/gateway.networking.k8s.io/v1/namespaces/%s/httproutes", "apis/monitoring.coreos.com/v1/namespaces/%s/prometheusrules",
            "apis/batch/v1/namespaces/%s/jobs", "api/v1/namespaces/%s/configmaps")
            for o in api.list("/" + k % ns) if o["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == release]
    if left:
        fail(f"{name}: left behind: {left}")
    print(f"ok   {name}: install, upgrade, rollback, uninstall with {len(first)} pods, {time.monotonic() - start:.0f} s", flush=True)


def budgets(api, ns, name):
    """A budget lets one pod of a service be evicted, and not two at once."""
    for b in api.list(f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets"):
        selector = ",".join(f"{k}={v}" for k, v in b["spec"]["selector"]["matchLabels"].items())
        found = api.list(f"/api/v1/namespaces/{ns}/pods?labelSelector={selector}")
        found = [p for p in found if not p["metadata"].get("deletionTimestamp")]
        until(f"the budget {b['metadata']['name']} is looked at", lambda: api.call("GET", f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets/{b['metadata']['name']}")[1]["status"].get("currentHealthy") == len(found))
        if len(found) < 2 or b["spec"].get("minAvailable"):
            continue
        allowed = [api.call("POST", f"/api/v1/namespaces/{ns}/pods/{p['metadata']['name']}/eviction?dryRun=All", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": p["metadata"]["name"]}})[0] for p in found[:1]]
        if allowed != [201]:
            fail(f"{name}: {b['metadata']['name']} lets no pod be evicted: {allowed}")


RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}


def refused(api, ns="strict"):
    """The API takes every object of ours, each pod at level restricted, and refuses a misspelled field of each kind."""
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": ns, "labels": RESTRICTED}})
    api.call("POST", f"/api/v1/namespaces/{ns}/serviceaccounts", {"metadata": {"name": "default"}})
    pods = 0
    paths = {"ScaledObject": "apis/keda.sh/v1alpha1/namespaces/%s/scaledobjects", "PodMonitor": "apis/monitoring.coreos.com/v1/namespaces/%s/podmonitors", "Deployment": "apis/apps/v1/namespaces/%s/deployments", "NetworkPolicy": "apis/networking.k8s.io/v1/namespaces/%s/networkpolicies",
             "HTTPRoute": "apis/gateway.networking.k8s.io/v1/namespaces/%s/httproutes", "PrometheusRule": "apis/monitoring.coreos.com/v1/namespaces/%s/prometheusrules", "ServiceMonitor": "apis/monitoring.coreos.com/v1/namespaces/%s/servicemonitors"}
    seen = set()
    for values in values_files():
        for o in documents(template(values).stdout):
            if pod_of(o):
                pod = {"metadata": {"name": o["metadata"]["name"]}, "spec": {**pod_of(o), "serviceAccountName": "default"}}
                code, answer = api.call("POST", f"/api/v1/namespaces/{ns}/pods?dryRun=All&fieldValidation=Strict", pod)
                pods += 1
                if code != 201:
                    fail(f"{os.path.basename(values)}: the API refuses a pod of {o['kind']}/{o['metadata']['name']}: {answer.get('message')}")
            if o["kind"] not in paths:
                continue
            o["metadata"]["namespace"] = ns
            path = "/" + paths[o["kind"]] % ns + "?dryRun=All&fieldValidation=Strict"
            code, answer = api.call("POST", path, o)
            if code != 201:
                fail(f"{os.path.basename(values)}: the API refuses {o['kind']}/{o['metadata']['name']}: {answer.get('message')}")
            if o["kind"] not in seen:
                seen.add(o["kind"])
                o["spec"]["misspelled"] = 1
                code, answer = api.call("POST", path, o)
                if code < 400 or "misspelled" not in answer.get("message", ""):
                    fail(f"the API takes a misspelled field of {o['kind']}")
    if seen != paths.keys():
        fail(f"not looked at: {paths.keys() - seen}")
    code, answer = api.call("POST", f"/api/v1/namespaces/{ns}/pods?dryRun=All", {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}})
    if code != 403:
        fail(f"the namespace does not enforce restricted: {code} {answer}")
    print(f"ok   {pods} pods at Pod Security's level restricted, strict validation by the API; a misspelled field of each of {', '.join(sorted(seen))} is refused", flush=True)


def test(modules, kubeconfig, port):
    os.environ["KUBECONFIG"] = kubeconfig
    api = API(port)
    with tempfile.TemporaryDirectory() as d:
        os.makedirs(d + "/crds/crds")
        open(d + "/crds/Chart.yaml", "w").write("apiVersion: v2\nname: crds\nversion: 0.0.1\n")
        for i, crd in enumerate(crds(modules)):
            json.dump(crd, open(f"{d}/crds/crds/{i}.yaml", "w"))
        helm("install", "crds", d + "/crds", "--wait")
    refused(api)
    stop = threading.Event()
    threading.Thread(target=balancer, args=(api, stop), daemon=True).start()
    for number, values in enumerate(values_files()):
        try:
            install(api, values, number)
        except (AssertionError, SystemExit) as e:
            fail(f"{os.path.basename(values)}: {e}")
    stop.set()


if __name__ == "__main__":
    {"schemas": schemas, "lint": lint, "test": test}[sys.argv[1]](*sys.argv[2:])
    sys.exit(1 if failures else 0)
