//! The stores: one contract that each must meet, and the additional behaviour of each.

mod contract;
mod errors;
mod faulty_servers;
mod files;
mod wrappers;

use std::sync::Arc;

use futures::TryStreamExt as _;
use kbak::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use kbak::format::layout::EpochPath;
use kbak::format::object::SealedObject;
use kbak::format::pack_refs::{PackName, PackRefs};
use kbak::report::event::Reporter;
use kbak::runtime::Runtime;
use kbak::store::file::FileStore;
use kbak::store::listing::list_all;
use kbak::store::memory::MemoryStore;
use kbak::store::open::open;
use kbak::store::probe::{ChecksumSupport, FeatureState};
use kbak::store::{ListedObject, Store, StoreError};

use crate::support::faulty_s3::FaultyS3Server;
use crate::support::servers::{S3Server, moto, seaweedfs};
use contract::check_contract;

/// Valid repository objects of any number and size.
struct TestObjects {
    runtime: Runtime,
    path: EpochPath,
}

impl TestObjects {
    fn new() -> Self {
        let runtime = Runtime::real();
        let path = EpochPath {
            writer: WriterId(runtime.random()),
            plan: NameId(runtime.random()),
            epoch: EpochId(runtime.random()),
        };
        Self { runtime, path }
    }

    /// Returns a needs list of `packs` random packs: 16 + 56 × `packs` bytes, in the domain `domain`.
    fn needs(&self, domain: u8, packs: usize) -> SealedObject {
        let pack = |_| PackName { hash: ObjectHash(self.runtime.random()), size: 1 };
        PackRefs::new((0..packs).map(pack).collect()).seal(&self.path, NameId([domain; 8]))
    }

    fn probe(&self) -> SealedObject {
        SealedObject::probe(self.path.writer, self.runtime.random())
    }
}

async fn all(store: &Arc<dyn Store>, prefix: &str) -> Result<Vec<ListedObject>, StoreError> {
    list_all(store.clone(), prefix, Reporter::silent()).try_collect().await
}

#[tokio::test]
async fn memory_store_meets_the_contract() {
    let store = MemoryStore::new(Runtime::real().clock).with_page(7);
    check_contract(Arc::new(store)).await;
}

#[tokio::test]
async fn folder_store_meets_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = FileStore::open(folder.path(), false, Runtime::real()).expect("a store").with_page(7);
    check_contract(Arc::new(store)).await;
}

#[tokio::test]
async fn honest_test_server_meets_the_contract() {
    let server = FaultyS3Server::start(7).await;
    let options = server.server.options("faulty");
    check_contract(open(&options, &Runtime::real(), &Reporter::silent()).await.expect("a store")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seaweedfs_meets_the_contract() {
    let server = seaweedfs();
    for (bucket, versions) in [("plain", false), ("versioned", true)] {
        server.bucket(bucket, versions).await;
        let store = open(&server.options(bucket), &Runtime::real(), &Reporter::silent()).await;
        let features = check_contract(store.expect("a store")).await;
        assert_eq!(features.checksum, ChecksumSupport::Verified);
        assert_eq!(features.versions, if versions { FeatureState::On } else { FeatureState::Off });
    }
    errors::check_that_rights_are_distinguished(&server, "plain").await;
    first_version_keeps_its_time(&server, "versioned").await;
}

/// Stores an object again by other means than kbak's, which never does, until the store lists it at a later time.
async fn first_version_keeps_its_time(server: &S3Server, bucket: &str) {
    let options = server.options(bucket);
    let store = open(&options, &Runtime::real(), &Reporter::silent()).await.expect("a store");
    let object = TestObjects::new().needs(1, 1);
    let name = object.key().as_str();
    let listed = async || {
        let folder = format!("{}/", name.rsplit_once('/').expect("a folder").0);
        all(&store, &folder).await.expect("a list").pop().expect("the object").modified
    };
    store.put(&object).await.expect("a put");
    let first = listed().await;
    while listed().await == first {
        let body = object.bytes().clone().into();
        let put = server.client().put_object().bucket(bucket).key(format!("some/prefix/{name}")).body(body);
        put.send().await.expect("a put");
    }
    let versions = store.versions().expect("a store with versions");
    assert_eq!(versions.first_stored(object.key()).await.expect("an answer"), Some(first));
    let other = TestObjects::new().needs(1, 1);
    assert_eq!(versions.first_stored(other.key()).await.expect("an answer"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moto_meets_the_contract() {
    let server = moto();
    server.bucket("plain", false).await;
    let store = open(&server.options("plain"), &Runtime::real(), &Reporter::silent()).await;
    let features = check_contract(store.expect("a store")).await;
    // moto accepts a wrong checksum silently, and reports versions in its own format.
    assert_eq!((features.checksum, features.versions), (ChecksumSupport::Ignored, FeatureState::Unknown));
}
