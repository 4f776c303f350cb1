//! Errors while Secrets are in memory: a list that does not decode, and a panic, with libraries at
//! their most verbose. No output may contain a value.

use serde_json::Value;

use super::said;
use super::scanner::Canaries;
use crate::support::keyed::{Keyed, run};
use crate::support::plane::{Plane, create};
use crate::support::proxy::{Fault, Proxy};

const VALUE: &str = "canaryUndecodable8317";
const SECRETS: &str = "/api/v1/secrets";

type Spoil = fn(Vec<u8>) -> Vec<u8>;

struct Scene {
    keyed: Keyed,
    plane: Plane,
}

impl Scene {
    async fn new() -> Self {
        let plane = Plane::up(&["--without-controllers"]);
        let secret = serde_json::json!({"metadata": {"name": "s"}, "stringData": {"key": VALUE.repeat(20)}});
        create(&plane.cluster().await, "/api/v1/namespaces/default/secrets", secret).await;
        Self { keyed: Keyed::new(), plane }
    }

    /// Backs up Secrets through a proxy that spoils their list; returns the exit code and all output.
    async fn backup(&self, panic: Option<&str>, spoil: Option<Spoil>) -> (Option<i32>, Vec<u8>) {
        let proxy = Proxy::before(&self.plane.kubeconfig(), move |asked| {
            spoil.filter(|_| asked.path == SECRETS && asked.is_exact()).map(Fault::Body)
        })
        .await;
        let mut command = self.keyed.backup_of(&proxy.kubeconfig());
        command.args(["--log-level", "debug", "--progress", "json", "-o", "json"]);
        command.env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full");
        if let Some(panic) = panic {
            command.env("KBAK_PANIC_AT", panic);
        }
        let output = run(command).await;
        let mut all = said(&output);
        all.extend(std::fs::read(self.keyed.at("report.json")).unwrap_or_default());
        (output.status.code(), all)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_secrets_are_not_quoted() {
    let scene = Scene::new().await;
    let canaries = Canaries::new(&[VALUE]);
    // Cut in the middle of the last Secret; a name that is a number; a control character in a value; a
    // list whose metadata are a Secret.
    let spoils: &[Spoil] = &[
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
    for (number, spoil) in spoils.iter().enumerate() {
        let (code, all) = scene.backup(None, Some(*spoil)).await;
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
    let scene = Scene::new().await;
    let (code, all) = scene.backup(Some("backup.resources.object:secrets"), None).await;
    let text = String::from_utf8_lossy(&all);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("kbak has a bug"), "{text}");
    assert_eq!(Canaries::new(&[VALUE]).in_bytes(&all), Vec::<String>::new());
    // The same run without a panic is a good backup.
    let (code, all) = scene.backup(None, None).await;
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&all));
    assert_eq!(Canaries::new(&[VALUE]).in_bytes(&all), Vec::<String>::new());
}
