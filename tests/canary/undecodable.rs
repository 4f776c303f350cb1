//! Errors while Secrets are in memory: a list that does not decode, and a panic, with libraries at
//! their most verbose. No output may contain a value.

use serde_json::Value;

use super::all_output;
use super::scanner::Canaries;
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, create};
use crate::support::program::run_beside;
use crate::support::proxy::{Proxy, ProxyFault};

const VALUE: &str = "canaryUndecodable8317";
const SECRETS: &str = "/api/v1/secrets";

type BodyChange = fn(Vec<u8>) -> Vec<u8>;

struct UndecodableFixture {
    cli: CliRepo,
    plane: ControlPlane,
}

impl UndecodableFixture {
    async fn new() -> Self {
        let plane = ControlPlane::start(&["--without-controllers"]);
        let secret = serde_json::json!({"metadata": {"name": "s"}, "stringData": {"key": VALUE.repeat(20)}});
        create(&plane.cluster().await, "/api/v1/namespaces/default/secrets", secret).await;
        Self { cli: CliRepo::new(), plane }
    }

    /// Backs up Secrets through a proxy that spoils their list; returns the exit code and all output.
    async fn backup(&self, panic: Option<&str>, change: Option<BodyChange>) -> (Option<i32>, Vec<u8>) {
        let proxy = Proxy::in_front_of(&self.plane.kubeconfig(), move |request| {
            change.filter(|_| request.path == SECRETS && request.is_exact()).map(ProxyFault::Body)
        })
        .await;
        let mut command = self.cli.cluster_backup_command(&proxy.kubeconfig());
        command.args(["--log-level", "debug", "--progress", "json", "-o", "json"]);
        command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
        if let Some(panic) = panic {
            command.env("KBAK_PANIC_AT", panic);
        }
        let output = run_beside(command).await;
        let mut all = all_output(&output);
        all.extend(std::fs::read(self.cli.at("report.json")).unwrap_or_default());
        (output.status.code(), all)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_secrets_are_not_quoted() {
    let fixture = UndecodableFixture::new().await;
    let canaries = Canaries::new(&[VALUE]);
    // Cut in the middle of the last Secret; a name that is a number; a control character in a value; a
    // list whose metadata are a Secret.
    let changes: &[BodyChange] = &[
        |body| body[..body.len() - 200].to_vec(),
        |body| changed(&body, |list| list["items"][0]["metadata"]["name"] = 5.into()),
        |body| changed(&body, |list| list["items"][0]["metadata"] = list["items"][0]["data"]["key"].clone()),
        |body| changed(&body, |list| list["metadata"] = list["items"][0]["data"]["key"].clone()),
        |body| {
            let (mut body, at) =
                (body.clone(), memchr::memmem::find(&body, b"Y2FuYXJ5").expect("the canary"));
            body[at] = 1;
            body
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        let (code, all) = fixture.backup(None, Some(*change)).await;
        let text = String::from_utf8_lossy(&all);
        assert_eq!(code, Some(3), "{number}: {text}");
        assert!(text.contains("cannot be understood"), "{number}: {text}");
        assert_eq!(canaries.in_bytes(&all), Vec::<String>::new(), "{number}");
    }
}

fn changed(body: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut list: Value = serde_json::from_slice(body).expect("JSON");
    change(&mut list);
    list.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_message_with_a_secret_is_not_printed() {
    let fixture = UndecodableFixture::new().await;
    let (code, all) = fixture.backup(Some("backup.resources.object:secrets"), None).await;
    let text = String::from_utf8_lossy(&all);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("kbak has a bug"), "{text}");
    assert_eq!(Canaries::new(&[VALUE]).in_bytes(&all), Vec::<String>::new());
    // The same run without a panic is a good backup.
    let (code, all) = fixture.backup(None, None).await;
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&all));
    assert_eq!(Canaries::new(&[VALUE]).in_bytes(&all), Vec::<String>::new());
}
