//! The stores: one list of laws that each must keep, and the additional behaviour of each.

mod errors;
mod files;
mod laws;
mod lies;
mod wrappers;

use std::sync::Arc;

use futures::TryStreamExt as _;
use kbak::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use kbak::format::layout::EpochPath;
use kbak::format::object::Sealed;
use kbak::format::pack_refs::{Needs, PackName};
use kbak::report::event::Reporter;
use kbak::runtime::World;
use kbak::store::file::FileStore;
use kbak::store::listing::list_all;
use kbak::store::memory::MemoryStore;
use kbak::store::open::open;
use kbak::store::probe::{Checked, Switch};
use kbak::store::{Entry, Store, StoreError};

use crate::support::liar::Liar;
use crate::support::servers::{moto, seaweedfs};

/// Valid repository objects of any number and size.
struct Objects {
    world: World,
    path: EpochPath,
}

impl Objects {
    fn new() -> Self {
        let world = World::real();
        let path = EpochPath {
            writer: WriterId(world.random()),
            plan: NameId(world.random()),
            epoch: EpochId(world.random()),
        };
        Self { world, path }
    }

    /// Returns a needs list of `packs` random packs: 8 + 40 × `packs` bytes, in the domain `domain`.
    fn needs(&self, domain: u8, packs: usize) -> Sealed {
        let pack = |_| PackName { hash: ObjectHash(self.world.random()), size: 1 };
        Needs::new((0..packs).map(pack).collect()).seal(&self.path, NameId([domain; 8]))
    }

    fn probe(&self) -> Sealed {
        Sealed::probe(self.path.writer, self.world.random())
    }
}

async fn all(store: &Arc<dyn Store>, prefix: &str) -> Result<Vec<Entry>, StoreError> {
    list_all(store.clone(), prefix, Reporter::silent()).try_collect().await
}

#[tokio::test]
async fn memory_store_keeps_the_laws() {
    let store = MemoryStore::new(World::real().clock).with_page(7);
    laws::hold(Arc::new(store)).await;
}

#[tokio::test]
async fn folder_store_keeps_the_laws() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FileStore::open(folder.path(), false, World::real()).expect("a store").with_page(7);
    laws::hold(Arc::new(store)).await;
}

#[tokio::test]
async fn honest_test_server_keeps_the_laws() {
    let liar = Liar::start(7).await;
    let options = liar.server.options("liar");
    laws::hold(open(&options, &World::real(), &Reporter::silent()).await.expect("a store")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_keeps_the_laws() {
    let server = seaweedfs();
    for (bucket, versions) in [("plain", false), ("versioned", true)] {
        server.bucket(bucket, versions).await;
        let store = open(&server.options(bucket), &World::real(), &Reporter::silent()).await;
        let abilities = laws::hold(store.expect("a store")).await;
        assert_eq!(abilities.checksum, Checked::Verified);
        assert_eq!(abilities.versions, if versions { Switch::On } else { Switch::Off });
    }
    errors::rights_are_told_apart(&server, "plain").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moto_keeps_the_laws() {
    let server = moto();
    server.bucket("plain", false).await;
    let store = open(&server.options("plain"), &World::real(), &Reporter::silent()).await;
    let abilities = laws::hold(store.expect("a store")).await;
    // moto accepts a wrong checksum silently, and reports versions in its own format.
    assert_eq!((abilities.checksum, abilities.versions), (Checked::Ignored, Switch::Unknown));
}
