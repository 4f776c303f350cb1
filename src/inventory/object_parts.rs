//! The parts of objects that an inventory decodes. A field that is absent has its default.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Declares parts of objects, whose fields are in camel case.
macro_rules! object_parts {
    ($($(#[$attribute:meta])* $visibility:vis struct $name:ident { $($fields:tt)* })+) => {
        $(
            $(#[$attribute])*
            #[derive(Default, serde::Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            $visibility struct $name { $($fields)* }
        )+
    };
}
pub(super) use object_parts;

/// An object, or a template of one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Object<S> {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: S,
}

/// An object of which only the metadata is used.
pub(super) type MetadataOnly = Object<IgnoredAny>;

object_parts! {
    #[derive(Debug)]
    pub(super) struct ObjectMeta {
        pub(super) name: String,
        pub(super) namespace: String,
        pub(super) labels: BTreeMap<String, String>,
        pub(super) annotations: BTreeMap<String, String>,
        pub(super) owner_references: Vec<OwnerReference>,
    }
    #[derive(Debug, Clone)]
    pub(super) struct OwnerReference {
        pub(super) api_version: String,
        pub(super) kind: String,
        pub(super) name: String,
        pub(super) controller: bool,
    }
    pub(super) struct PodSpec {
        pub(super) containers: Vec<Container>,
        pub(super) init_containers: Vec<Container>,
        pub(super) volumes: Vec<PodVolume>,
    }
    pub(super) struct Container {
        pub(super) image: String,
        pub(super) command: Vec<String>,
        pub(super) args: Vec<String>,
        pub(super) ports: Vec<ContainerPort>,
        env: Vec<Variable>,
    }
    pub(super) struct ContainerPort {
        pub(super) container_port: u16,
    }
    /// An environment variable. Its value may be a password, so only names of users and hosts are kept of it.
    pub(super) struct Variable {
        name: String,
        pub(super) value: String,
        value_from: Option<ValueFrom>,
    }
    struct ValueFrom {
        secret_key_ref: Option<SecretKey>,
    }
    struct SecretKey {
        name: String,
        key: String,
    }
    pub(super) struct PodVolume {
        pub(super) persistent_volume_claim: Option<ClaimSource>,
        pub(super) host_path: Option<IgnoredAny>,
    }
    pub(super) struct ClaimSource {
        pub(super) claim_name: String,
    }
}

impl Container {
    /// Returns the variable with the first of these names, which spaces separate, that is set.
    pub(super) fn variable(&self, names: &str) -> Option<&Variable> {
        names.split_whitespace().find_map(|name| self.env.iter().find(|variable| variable.name == name))
    }
}

impl Variable {
    /// Returns the Secret and the key in it that hold the value.
    pub(super) fn secret(&self) -> Option<(String, String)> {
        let SecretKey { name, key } = self.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some((name.clone(), key.clone()))
    }
}
