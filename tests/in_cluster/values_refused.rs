//! Values that would make a broken installation: they are refused before anything is installed, with their place.

use super::{helm, project};
use crate::support::owners::run;

/// Values beside the least ones, and the place that the refusal names.
const REFUSED: &[(&str, &str)] = &[
    ("bakcup.suspend=true", "additional properties 'bakcup' not allowed"),
    ("backup.schedule=nightly", "/backup/schedule"),
    ("backup.timeZone=1", "/backup/timeZone"),
    ("verify.read=some", "/verify/read"),
    ("rbac.extraRules[0].resources[0]=*,rbac.extraRules[0].apiGroups[0]=a", "/rbac/extraRules/0/resources"),
    ("rbac.namespaces={shop,shop}", "/rbac/namespaces"),
    ("rbac.namespaces[0]=shop.eu", "/rbac/namespaces/0"),
    // Names of objects: numbers, capital letters, underscores, dots side by side.
    ("store.existingSecret=Kbak_Store", "/store/existingSecret"),
    ("store.existingSecret=2024", "/store/existingSecret"),
    ("writer.existingSecret=2024", "/writer/existingSecret"),
    ("epoch.existingSecret=a..b", "/epoch/existingSecret"),
    ("image.pullSecrets[0]=7", "/image/pullSecrets/0"),
    ("existingSignersConfigMap=-pin", "/existingSignersConfigMap"),
    ("serviceAccounts.backup.name=Foo_Bar", "/serviceAccounts/backup/name"),
    ("nameOverride=Foo_Bar", "/nameOverride"),
    ("fullnameOverride=Foo", "/fullnameOverride"),
    ("clusterName=prod/eu", "/clusterName"),
    ("image.repository=Registry/Kbak", "/image/repository"),
    ("image.tag=a b", "/image/tag"),
    // Volumes and variables beside the chart's own.
    ("extraVolumes[0].name=Foo_Bar,extraVolumes[0].hostPath.path=/a", "/extraVolumes/0/name"),
    ("extraVolumes[0].name=plan,extraVolumes[0].hostPath.path=/a", "/extraVolumes/0/name"),
    ("extraVolumes[0].name=database-0,extraVolumes[0].hostPath.path=/a", "/extraVolumes/0/name"),
    (
        "extraVolumes[0].name=a123456789-123456789-123456789-123456789-123456789-123456789-1234,\
         extraVolumes[0].hostPath.path=/a",
        "/extraVolumes/0/name",
    ),
    (
        "extraVolumes[0].name=a,extraVolumes[0].hostPath.path=/a,extraVolumes[1].name=a,\
         extraVolumes[1].hostPath.path=/b",
        "extraVolumes[1]: a occurs twice",
    ),
    (
        "extraVolumeMounts[0].name=a,extraVolumeMounts[0].mountPath=/a,extraVolumeMounts[1].name=b,\
         extraVolumeMounts[1].mountPath=/a",
        "extraVolumeMounts[1]: /a occurs twice",
    ),
    ("extraVolumeMounts[0].name=a,extraVolumeMounts[0].mountPath=/scratch", "/extraVolumeMounts/0/mountPath"),
    ("extraEnv[0].name=TMPDIR,extraEnv[0].value=/a", "/extraEnv/0/name"),
    ("extraEnv[0].name=A,extraEnv[0].value=1", "/extraEnv/0/value"),
    ("extraEnv[0].name=A,extraEnv[1].name=A", "extraEnv[1]: A occurs twice"),
    ("pods.hostAliases[0].ip=store", "/pods/hostAliases/0"),
    (r"pods.labels.app\.kubernetes\.io/name=other", "app.kubernetes.io/name"),
    // Databases.
    ("databases[0].name=Foo_Bar,databases[0].existingSecret=a", "/databases/0/name"),
    (
        "databases[0].name=shop,databases[0].existingSecret=a,databases[0].passwordKey=a/b",
        "/databases/0/passwordKey",
    ),
    (
        "databases[0].name=shop,databases[0].existingSecret=a,databases[1].name=shop,databases[1].existingSecret=b,\
         plan.spec.databases[0].name=shop,plan.spec.databases[0].engine=postgresql",
        "databases[1]: shop occurs twice",
    ),
    // The plan.
    ("plan.name=Foo_Bar", "/plan/name"),
    ("plan.name=12", "/plan/name"),
    ("plan.spec.recipients=null", "/plan/spec"),
    ("plan.spec.recipients={ada}", "/plan/spec/recipients/0"),
    ("plan.spec.resource.kinds=all", "/plan/spec"),
    ("plan.spec.coverage=all", "/plan/spec/coverage"),
    // YAML's off is a boolean.
    ("plan.spec.coverage=false", "/plan/spec/coverage"),
    ("plan.spec.epoch.maxAge=month", "/plan/spec/epoch/maxAge"),
    ("plan.spec.limits.memory=lots", "/plan/spec/limits/memory"),
    ("plan.spec.repository.url=backups/prod", "/plan/spec/repository/url"),
    ("plan.spec.repository.endpoint=s3.example.eu", "/plan/spec/repository/endpoint"),
    ("plan.spec.writer.epochSecret=Foo_Bar", "/plan/spec/writer/epochSecret"),
    ("plan.spec.databases[0].name=shop", "/plan/spec/databases/0"),
    (
        "plan.spec.databases[0].name=Foo_Bar,plan.spec.databases[0].engine=postgresql",
        "/plan/spec/databases/0/name",
    ),
    (
        "plan.spec.databases[0].name=shop,plan.spec.databases[0].engine=oracle",
        "/plan/spec/databases/0/engine",
    ),
    (
        "plan.spec.databases[0].name=shop,plan.spec.databases[0].engine=etcd,plan.spec.databases[1].name=shop,\
         plan.spec.databases[1].engine=etcd",
        "plan.spec.databases[1]: shop occurs twice",
    ),
    ("plan.spec.notify[0].ping.urls=a", "/plan/spec/notify/0"),
    // Receivers of notices.
    ("notify[0].ping.key=url", "/notify/0/ping"),
    ("notify[0].ping.url=https://", "/notify/0/ping/url"),
    ("notify[0].ping.url=https://a,notify[0].ping.existingSecret=a", "/notify/0/ping"),
    ("notify[0].ping.url=https://a,notify[0].ping.template=a", "/notify/0/ping"),
    ("notify[0].metrics.url=https://a,notify[0].metrics.when=always", "/notify/0/metrics"),
    ("notify[0].metrics.url=https://a,notify[0].metrics.cluster=a/b", "/notify/0/metrics/cluster"),
    ("notify[0].webhook.url=https://a,notify[0].webhook.when=never", "/notify/0/webhook/when"),
    ("notify[0].webhook.url=https://a,notify[0].webhook.verbs={restore}", "/notify/0/webhook/verbs/0"),
    ("notify[0].mail.url=https://a", "/notify/0"),
];

#[test]
fn unknown_and_malformed_values_are_refused_with_their_place() {
    let home = tempfile::tempdir().expect("a folder");
    for (setting, place) in REFUSED {
        let mut template = helm(home.path());
        template.args(["template", "kbak"]).arg(project("deploy/chart"));
        template.arg("--values").arg(project("tests/in_cluster/values/small.yaml")).args(["--set", setting]);
        let output = run(&mut template, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(place), "{setting}: {said}");
    }
}

#[test]
fn databases_with_long_and_similar_names_have_volumes_of_their_own() {
    let home = tempfile::tempdir().expect("a folder");
    let long = "a".repeat(63);
    let mut template = helm(home.path());
    template.args(["template", "kbak"]).arg(project("deploy/chart"));
    template.arg("--values").arg(project("tests/in_cluster/values/small.yaml"));
    for (number, name) in ["a.b", "a-b", &long].iter().enumerate() {
        template.args(["--set", &format!("plan.spec.databases[{number}].name={name}")]);
        template.args(["--set", &format!("plan.spec.databases[{number}].engine=postgresql")]);
        template.args([
            "--set",
            &format!("databases[{number}].name={name},databases[{number}].existingSecret=s"),
        ]);
    }
    let text = String::from_utf8(crate::support::owners::run_ok(&mut template, b"")).expect("text");
    for (number, name) in ["a.b", "a-b", &long].iter().enumerate() {
        let mount =
            format!("{{name: database-{number}, mountPath: /etc/kbak/databases/{name}/s, readOnly: true}}");
        assert!(text.contains(&mount), "{mount}: {text}");
    }
}
