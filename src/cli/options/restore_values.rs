//! Names and help texts of values of `kbak restore` options whose types the restore plan has as well.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::plan::{ExistingPolicy, Permission, Profile, Scope, SideEffect};

/// Kinds of data that are restored only if `--allow` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    /// Kubernetes objects.
    Resources(Permission),
    /// Device files.
    Devices,
    /// File attributes beyond user.*, ACLs and capabilities.
    Xattrs,
}

impl Allowed {
    /// Returns the permission of a restore of resources; `None` if it concerns files.
    pub(crate) fn of_resources(self) -> Option<Permission> {
        if let Self::Resources(permission) = self { Some(permission) } else { None }
    }
}

/// Implements [`ValueEnum`]: the values in the order of the help, each with its name and its help text.
macro_rules! values {
    ($type:ty: $($($variant:ident)::+ $(($($inner:ident)::+))?, $name:literal, $help:literal;)+) => {
        impl ValueEnum for $type {
            fn value_variants<'a>() -> &'a [Self] {
                &[$($($variant)::+ $(($($inner)::+))?),+]
            }

            fn to_possible_value(&self) -> Option<PossibleValue> {
                let (name, help) = match self {
                    $($($variant)::+ $(($($inner)::+))? => ($name, $help),)+
                };
                Some(PossibleValue::new(name).help(help))
            }
        }
    };
}

values!(Allowed:
    Self::Resources(Permission::Rbac), "rbac", "Roles and their bindings, aws-auth";
    Self::Resources(Permission::Webhooks), "webhooks", "Webhook configurations and admission policies";
    Self::Resources(Permission::Crds), "crds", "CustomResourceDefinitions";
    Self::Resources(Permission::Apiservices), "apiservices", "APIServices that a Service implements";
    Self::Resources(Permission::Privileged), "privileged",
        "Pods that the level baseline of Pod Security refuses, hostPath volumes";
    Self::Devices, "devices", "Device files";
    Self::Xattrs, "xattrs", "Extended attributes other than user.*, ACLs and capabilities";
);

values!(Profile:
    Self::App, "app", "None: applications only";
    Self::Rebuild, "rebuild", "The settings of the infrastructure";
    Self::Everything, "everything", "The settings and the state of the infrastructure";
);

values!(Scope:
    Self::Data, "data", "Only objects that Git does not hold";
    Self::All, "all", "All objects";
);

values!(ExistingPolicy:
    Self::Skip, "skip", "Keep the existing object";
    Self::Patch, "patch", "Merge the fields of the backup into the existing object";
    Self::Replace, "replace", "Replace the existing object, unless it is changed meanwhile";
);

values!(SideEffect:
    Self::Jobs, "jobs", "Run CronJobs and Jobs, and let Argo CD sync automatically";
    Self::Ingress, "ingress", "Create Ingresses, Gateways and routes";
    Self::Dns, "dns", "Create objects that external-dns publishes";
    Self::Acme, "acme", "Create certificates and issuers that use an ACME server";
    Self::Loadbalancers, "loadbalancers",
        "Create Services of the type LoadBalancer, or with external addresses";
    Self::Volumes, "volumes",
        "Create PersistentVolumes of storage that the other cluster may still use, with the policy Retain";
    Self::None, "none", "No side effect; objects that are held back are no gap";
);
