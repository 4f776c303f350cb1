//! Objects that a cluster does not accept, or that no restore creates, are never a success.

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::control_plane::{ControlPlane, create, delete, get, patch};
use crate::support::memory_backup::create_namespace;
use crate::support::program::{good, run_json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CREDS: &str = "/apis/demo.kbak.dev/v1/namespaces/shop/creds";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";

fn schema(fields: &[&str]) -> Value {
    let fields: serde_json::Map<String, Value> =
        fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
    json!({"openAPIV3Schema": {"type": "object",
        "properties": {"spec": {"type": "object", "properties": fields}}}})
}

/// Defines Creds with these fields, and waits until the schema is enforced.
async fn define(cluster: &Cluster, fields: &[&str]) {
    define_stored(cluster, fields, fields).await;
}

/// The same with other fields in the stored version.
async fn define_stored(cluster: &Cluster, served: &[&str], fields: &[&str]) {
    let other = served != fields;
    let version = json!({"name": "v1", "served": true, "storage": !other, "schema": schema(served)});
    let stored = json!({"name": "v2", "served": true, "storage": other, "schema": schema(fields)});
    let spec = json!({"group": "demo.kbak.dev", "scope": "Namespaced", "versions": [version, stored],
        "names": {"plural": "creds", "singular": "cred", "kind": "Cred", "listKind": "CredList"}});
    let path = format!("{DEFINITIONS}/creds.demo.kbak.dev");
    match cluster.get(&path, "", 1 << 20).await {
        Ok(_) => drop(patch(cluster, &path, json!({"spec": {"versions": spec["versions"]}})).await),
        Err(_) => drop(
            create(
                cluster,
                DEFINITIONS,
                json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                    "metadata": {"name": "creds.demo.kbak.dev"}, "spec": spec}),
            )
            .await,
        ),
    }
    let probe = json!({"apiVersion": "demo.kbak.dev/v1", "kind": "Cred", "metadata": {"name": "probe"},
        "spec": {"keep": "x"}});
    for _ in 0..600 {
        let body = Bytes::from(probe.to_string());
        drop(
            cluster
                .send(Method::DELETE, &format!("{CREDS}/probe"), "", "application/json", Bytes::new())
                .await,
        );
        drop(cluster.send(Method::POST, CREDS, "", "application/json", body).await);
        let answer = cluster.get(&format!("{CREDS}/probe"), "", 1 << 20).await;
        let made = answer.ok().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
        if made.is_some_and(|made| made.pointer("/spec/keep").is_some() == fields.contains(&"keep")) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the definition does not count");
}

struct RejectedFixture {
    cli: CliRepo,
    into: Vec<String>,
}

impl RejectedFixture {
    fn new(plane: &ControlPlane) -> Self {
        let cli = CliRepo::new();
        let kubeconfig = plane.kubeconfig().display().to_string();
        good(
            &[&["backup", "--resources", "--kubeconfig", &kubeconfig], &as_strs(&cli.writer_args())[..]]
                .concat(),
        );
        let into = ["restore", "latest", "--cluster", "--kubeconfig", &kubeconfig].map(str::to_owned);
        Self { cli, into: into.to_vec() }
    }

    /// Returns the exit code, the gaps of the report, and the messages.
    fn restore(&self, more: &[&str]) -> (i32, String, String) {
        let (into, reader) = (as_strs(&self.into), self.cli.reader_args());
        let (code, report, said) = run_json(&[&into[..], more, &as_strs(&reader)].concat());
        (code, report["items"][0]["gaps"].to_string(), said)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_dropped_by_a_changed_definition_are_reported() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "shop").await;
    define(&cluster, &["pw", "keep"]).await;
    let cred = json!({"apiVersion": "demo.kbak.dev/v1", "kind": "Cred", "metadata": {"name": "c1"},
        "spec": {"pw": "hidden7391", "keep": "hidden7391"}});
    create(&cluster, CREDS, cred).await;
    let fixture = RejectedFixture::new(&plane);
    delete(&cluster, &format!("{CREDS}/c1")).await;
    define(&cluster, &["pw"]).await;

    let one = ["--object", "creds.demo.kbak.dev/shop/c1"];
    let named = |(code, gaps, said): (i32, String, String), what: &str| {
        assert!(code == 3 && gaps.contains("c1") && gaps.contains(what), "{code} {gaps} {said}");
        assert!(!gaps.contains("hidden7391") && !said.contains("hidden7391"), "{gaps} {said}");
    };
    named(fixture.restore(&one), "spec.keep");
    let found = get(&cluster, &format!("{CREDS}/c1")).await;
    assert_eq!(found["spec"], json!({"pw": "hidden7391"}));
    named(fixture.restore(&one), "not as in the backup");
    for existing in ["patch", "replace"] {
        named(fixture.restore(&[&one[..], &["--existing", existing]].concat()), "spec.keep");
    }
    // The written version has the field, the stored one has not: then there is no warning.
    define_stored(&cluster, &["pw", "keep"], &["pw"]).await;
    for existing in ["patch", "replace"] {
        named(fixture.restore(&[&one[..], &["--existing", existing]].concat()), "spec.keep");
    }
    delete(&cluster, &format!("{CREDS}/c1")).await;
    named(fixture.restore(&one), "spec.keep");
    define(&cluster, &["pw", "keep"]).await;
    let (code, gaps, said) = fixture.restore(&[&one[..], &["--existing", "patch"]].concat());
    assert_eq!(code, 0, "{gaps} {said}");
    assert_eq!(get(&cluster, &format!("{CREDS}/c1")).await["spec"]["keep"], "hidden7391");
    assert_eq!(fixture.restore(&one).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn modified_default_roles_are_restored_and_skipped_requested_objects_reported() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "shop").await;
    let copied = json!({"metadata": {"name": "custom", "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    create(&cluster, ROLES, copied).await;
    let admins = format!("{BINDINGS}/cluster-admin");
    let before = get(&cluster, &admins).await["subjects"].clone();
    let ada = json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "ada"});
    let more: Vec<Value> = before.as_array().into_iter().flatten().cloned().chain([ada]).collect();
    patch(&cluster, &admins, json!({"subjects": more})).await;
    let lease = json!({"metadata": {"name": "lock"}, "spec": {"holderIdentity": "a"}});
    create(&cluster, "/apis/coordination.k8s.io/v1/namespaces/shop/leases", lease).await;
    let fixture = RejectedFixture::new(&plane);
    delete(&cluster, &format!("{ROLES}/custom")).await;
    patch(&cluster, &admins, json!({"subjects": before})).await;

    let (code, gaps, said) = fixture.restore(&["--allow", "rbac"]);
    assert!(code == 3 && gaps.contains("cluster-admin"), "it differs: {code} {gaps} {said}");
    get(&cluster, &format!("{ROLES}/custom")).await;
    let (code, gaps, said) = fixture.restore(&["--allow", "rbac", "--existing", "replace"]);
    assert_eq!(code, 0, "{gaps} {said}");
    assert_eq!(get(&cluster, &admins).await["subjects"], Value::from(more));

    for (object, why) in [
        ("leases.coordination.k8s.io/shop/lock", "derived, the cluster makes them itself (lease)"),
        ("clusterroles.rbac.authorization.k8s.io/view", "(default)"),
    ] {
        let (code, gaps, said) = fixture.restore(&["--object", object, "--allow", "rbac"]);
        assert!(code == 3 && gaps.contains(object) && gaps.contains(why), "{code} {gaps} {said}");
        let dry = [&as_strs(&fixture.into)[..], &["--object", object, "--dry-run"]].concat();
        let (code, out, said) = fixture.cli.run_reader(&dry);
        assert!(code == 3 && out.contains(why), "{code} {out} {said}");
    }
}
