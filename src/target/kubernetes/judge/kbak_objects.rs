//! Detects kbak's own objects: the keys of a writer and the backup jobs. A restored writer key may still be
//! in use and an epoch's secret is stale. A new cluster gets new ones, since two clusters must not write as
//! one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::kubernetes::KindInfo;
use crate::kubernetes::pod_spec::{containers, pod_spec};
use crate::target::kubernetes::{annotation, each, label, text};

/// Values of the first field of the files that a writer needs.
const FILES: [&str; 2] = ["writer key", "epoch secret"];

/// True if the object holds kbak's own keys. They are detected by content, because a plan chooses the names
/// of its files.
pub(crate) fn holds_own_keys(kind: &KindInfo, object: &Value) -> bool {
    let values = |field: &str| {
        let data = object.get(field).and_then(Value::as_object);
        data.into_iter().flatten().filter_map(|(_, value)| value.as_str())
    };
    match kind.resource().as_str() {
        "secrets" => values("data").any(is_encoded),
        "configmaps" => {
            values("data").any(|text| is_own(text.as_bytes())) || values("binaryData").any(is_encoded)
        }
        _ => false,
    }
}

fn is_encoded(value: &str) -> bool {
    is_own(&Zeroizing::new(BASE64_STANDARD.decode(value).unwrap_or_default()))
}

fn is_own(bytes: &[u8]) -> bool {
    // Other files are ruled out without parsing them as JSON.
    bytes.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<Own>(bytes).is_ok_and(|own| FILES.contains(&own.kbak.as_str()))
}

/// The field that marks every kbak file; other fields are ignored.
#[derive(serde::Deserialize)]
struct Own {
    kbak: String,
}

pub(crate) fn is_own_job(kind: &KindInfo, object: &Value) -> bool {
    if kind.group != "batch" {
        return false;
    }
    let labelled = ["app.kubernetes.io/name", "app.kubernetes.io/part-of"]
        .iter()
        .any(|name| label(object, name) == "kbak" || annotation(object, name) == Some("kbak"));
    labelled || pod_spec(kind, object).is_some_and(|spec| containers(spec).any(runs_kbak))
}

/// True if a container's image is named kbak or a word of its command is, since a shell may start it.
fn runs_kbak(container: &Value) -> bool {
    let words = each(container, "/command").chain(each(container, "/args")).filter_map(Value::as_str);
    is_image(text(container, "/image")) || words.flat_map(shell_words).any(is_program)
}

/// `ghcr.io/x/kbak:1`, `kbak-tools@sha256:…`: kbak is a word in the path. The registry's name counts as well,
/// because a registry for kbak's images may have that name.
fn is_image(image: &str) -> bool {
    let path = image.split('@').next().unwrap_or_default();
    let tag = path.rfind(':').filter(|colon| !path[*colon..].contains('/'));
    let path = &path[..tag.unwrap_or(path.len())];
    path.split(['/', '-', '_', '.']).any(|word| word == "kbak")
}

/// Splits an argument that may be a shell script into words.
fn shell_words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || ";|&()<>{}`'\"$".contains(c))
}

/// True for `kbak` or a path to it, but not for a URL.
fn is_program(word: &str) -> bool {
    word.rsplit('/').next() == Some("kbak") && !word.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind(group: &str, plural: &str) -> KindInfo {
        KindInfo::from_path_parts(group, "v1", plural)
    }

    #[test]
    fn own_keys_are_detected_by_content() {
        let key = "\n{\n  \"kbak\": \"writer key\", \"version\": 1}\n";
        let epoch = "{\"kbak\": \"epoch secret\", \"version\": 1}";
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        let secret = |name: &str, text: &str| {
            holds_own_keys(&kind("", "secrets"), &json!({"data": {"other": "", name: encoded(text)}}))
        };
        assert!(secret("writer.key", key) && secret("nightly", key) && secret("a.epoch", epoch));
        for other in ["", "x", "{\"kbak\": 1}", "{\"kbak\": \"bucket\"}", "-----BEGIN PRIVATE KEY-----"] {
            assert!(!secret("writer.key", other), "{other}");
        }
        let map = kind("", "configmaps");
        assert!(holds_own_keys(&map, &json!({"data": {"key": key}})));
        assert!(holds_own_keys(&map, &json!({"binaryData": {"key": encoded(epoch)}})));
        assert!(!holds_own_keys(&map, &json!({"data": {"plan.yaml": "apiVersion: kbak.dev/v1"}})));
    }

    #[test]
    fn own_jobs_are_detected_by_image_and_command() {
        let own = |container: Value| {
            let pod = json!({"spec": {"containers": [{"image": "a:1"}, container]}});
            is_own_job(
                &kind("batch", "cronjobs"),
                &json!({"spec": {"jobTemplate": {"spec": {"template": pod}}}}),
            )
        };
        for yes in [
            json!({"image": "kbak"}),
            json!({"image": "ghcr.io:443/x/kbak:1@sha256:00"}),
            json!({"image": "registry/kbak-tools:1"}),
            json!({"command": ["/usr/local/bin/kbak", "backup"]}),
            json!({"command": ["sh", "-c", "set -e; exec kbak backup --plan x"]}),
            json!({"command": ["nice"], "args": ["-n", "19", "kbak"]}),
            json!({"args": ["-c", "(/opt/kbak check) && \"kbak\" backup"]}),
        ] {
            assert!(own(yes.clone()), "{yes}");
        }
        for no in [
            json!({"image": "a:kbak"}),
            json!({"image": "kbakery"}),
            json!({"args": ["--bucket=kbak", "s3://backups/kbak", "mykbak", "kbak.yaml"]}),
        ] {
            assert!(!own(no.clone()), "{no}");
        }
    }
}
