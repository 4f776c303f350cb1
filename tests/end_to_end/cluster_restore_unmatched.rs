//! Requested objects that the snapshot lacks are reported, and the restore does not succeed.

use serde_json::{Value, json};

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::control_plane::{ControlPlane, create, get};
use crate::support::memory_backup::{config_map, create_namespace};
use crate::support::program::{good, kbak};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selection_without_a_match_fails() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "shop").await;
    create(&cluster, "/api/v1/namespaces/shop/configmaps", config_map("settings", "1")).await;
    let web = json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}}});
    create(&cluster, "/apis/apps/v1/namespaces/shop/deployments", web).await;
    let cli = CliRepo::new();
    let kubeconfig = plane.kubeconfig().display().to_string();
    good(
        &[&["backup", "--resources", "--kubeconfig", &kubeconfig], &as_strs(&cli.writer_args())[..]].concat(),
    );
    let into = ["restore", "latest", "--cluster", "--kubeconfig", &kubeconfig];

    // A kind that the snapshot lacks: refused, with a suggestion.
    for (argument, kind, meant) in [
        ("--kind", "deploymentz", "did you mean deployments.apps?"),
        ("--kind", "Deployment", "did you mean deployments.apps?"),
        ("--object", "deployments/shop/web", "did you mean deployments.apps?"),
        ("--object", "configmap/shop/settings", "did you mean configmaps?"),
    ] {
        for more in [&[][..], &["--dry-run"]] {
            let (code, _, said) = cli.run_reader(&[&into[..], &[argument, kind], more].concat());
            assert_eq!(code, 2, "{said}");
            assert!(said.contains(meant) && said.contains("nothing was changed"), "{said}");
        }
    }
    // A name that the snapshot lacks.
    for (arguments, told) in [
        (&["--namespace", "nosuch"][..], "--namespace nosuch"),
        (&["--namespace", "shop", "--namespace", "typo"], "--namespace typo"),
        (&["--namespace", "shop", "--selector", "nosuch=yes"], "--selector nosuch=yes"),
        (&["--object", "configmaps/shop/nope"], "--object configmaps/shop/nope"),
        (&["--namespace", "shop", "--kind", "leases.coordination.k8s.io"], "--namespace shop"),
    ] {
        let told = format!("fits {told}");
        let (code, out, said) = cli.run_reader(&[&into[..], arguments, &["--dry-run"]].concat());
        assert!(code == 3 && out.contains(&told), "{code} {out} {said}");
        let (code, out, said) = cli.run_reader(&[&into[..], arguments, &["-o", "json"]].concat());
        let report: Value = serde_json::from_str(&out).expect("JSON");
        let gaps = report["items"][0]["gaps"].as_array().expect("gaps");
        let named = gaps.iter().any(|gap| {
            gap["code"] == "absent" && gap["reason"].as_str().is_some_and(|why| why.contains(&told))
        });
        assert!(code == 3 && named, "{code} {report:#} {said}");
        let folder = cli.text(&format!("files{}", arguments.join("-").replace('/', ".")));
        let files = ["restore", "latest", "--resources-to", &folder];
        let (code, out, said) = cli.run_reader(&[&files[..], arguments, &["--dry-run"]].concat());
        assert!(code == 3 && out.contains(&told), "{code} {out} {said}");
        let (code, _, said) = cli.run_reader(&[&files[..], arguments].concat());
        assert!(code == 3 && said.contains(&told), "{code} {said}");
    }

    // The same from a plan, and mappings and modifiers without effect.
    let plan = cli.text("restore.yaml");
    let text = |rest: &str| {
        format!("apiVersion: kbak.dev/v1\nkind: RestorePlan\nmetadata: {{name: r}}\nspec:\n{rest}")
    };
    std::fs::write(&plan, text("  select: {kinds: {include: [deploymentz]}}\n")).expect("a plan");
    let (code, _, said) = cli.run_reader(&[&into[..], &["--plan", &plan]].concat());
    assert!(code == 2 && said.contains("deployments.apps"), "{code} {said}");
    let rest = "  select: {namespaces: {include: [shop, shpo]}}\n  map: {namespaces: {typo: copy}}\n  \
                modify:\n    - {match: {names: [settings]}, merge: {data: {a: b}}}\n    - {match: {names: [nope]}, merge: {data: {a: b}}}\n";
    std::fs::write(&plan, text(rest)).expect("a plan");
    let (code, out, said) = cli.run_reader(&[&into[..], &["--plan", &plan, "--dry-run"]].concat());
    assert_eq!(code, 3, "{said}");
    let absent: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("absent   ")).collect();
    let wanted = ["--namespace shpo", "the mapping of namespace typo", "modifier 2"];
    assert_eq!(absent, wanted.map(|one| format!("nothing in the snapshot fits {one}")), "{out}");

    // The existing part is restored, which is a success.
    let own = ["--namespace", "shop:copy", "--selector", "!nosuch"];
    let (code, _, said) = cli.run_reader(&[&into[..], &own].concat());
    assert_eq!(code, 0, "{said}");
    get(&cluster, "/api/v1/namespaces/copy/configmaps/settings").await;
    // Files equal the backup: options that change objects are refused, and nothing is written.
    let folder = cli.text("wished");
    for (wish, named) in [
        (&["--namespace", "shop:copy"][..], "another namespace"),
        (&["--map-image", "a=b"], "other images"),
        (&["--existing", "replace", "--takeover"], "--existing, --takeover"),
        (&["--plan", &plan], "modify"),
    ] {
        let (code, _, said) = cli.run_reader(&[&["restore", "--resources-to", &folder], wish].concat());
        assert!(code == 2 && said.contains(named) && !cli.at("wished").exists(), "{code} {said}");
    }
    // A merge patch removes a field with null (RFC 7396).
    let removes = cli.text("removes.yaml");
    let rest = "  map: {namespaces: {shop: bare}}\n  modify:\n    - {match: {names: [settings]}, merge: {data: null}}\n";
    std::fs::write(&removes, text(rest)).expect("a plan");
    let (code, _, said) = cli.run_reader(&[&into[..], &["--plan", &removes, "--namespace", "shop"]].concat());
    assert_eq!(code, 0, "{said}");
    let bare = get(&cluster, "/api/v1/namespaces/bare/configmaps/settings").await;
    assert_eq!(bare.get("data"), None, "{bare}");
    // One object into another namespace: the namespace option only names the destination.
    let one = ["--object", "configmaps/shop/settings", "--namespace", "shop:one"];
    let (code, _, said) = cli.run_reader(&[&into[..], &one].concat());
    assert_eq!(code, 0, "{said}");
    get(&cluster, "/api/v1/namespaces/one/configmaps/settings").await;
    let others = get(&cluster, "/apis/apps/v1/namespaces/one/deployments").await;
    assert_eq!(others["items"], json!([]));
    let (code, _, _) = kbak(&["plan", "check", &plan]);
    assert_eq!(code, 0, "a plan's words are sound, whatever a snapshot holds");
}
