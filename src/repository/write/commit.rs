//! Commits a snapshot, in the order of docs/format.md. State, pack references and body are
//! stored, the latter two read back. A listing must show every referenced pack; then follow
//! the manifest, a second listing, and the manifest read back.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use crate::format::body::{Body, BodyError, Item, names_key_text};
use crate::format::derive::{EpochSecret, NamesKey};
use crate::format::ids::{NameId, ObjectHash};
use crate::format::manifest::{DomainObjects, Envelope, Heal, Manifest, ManifestError, Needs, PublicItem};
use crate::format::pack_refs::{EtagPrint, PackName, PackRefs, StoreTag};
use crate::format::sign::SigningKey;
use crate::format::state::{self, StateError, WriterState};
use crate::format::{epoch::VerifiedEpoch, object::SealedObject, signers::Signers};
use crate::pipeline::context::PipelineContext;
use crate::repository::write::concurrent::ConcurrentSearch;
use crate::repository::{chain::Chain, index_loader::DomainIndexLoader};
use crate::runtime::kill_point;
use crate::store::{StoreError, StoreErrorKind, listing};

/// The fault of an object that has other bytes than those that were put.
const DIFFERS: &str = "reads back differently";

/// The names under which a list of packs is stored, if what is there has other bytes.
const MAX_LIST_NAMES: u32 = 8;

/// An error while committing a snapshot. The next run reuses the objects already stored.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The body could not be written.
    #[error("cannot write the snapshot's body")]
    Body(#[from] BodyError),
    /// The state could not be written.
    #[error("cannot write the writer's state")]
    State(#[from] StateError),
    /// The manifest could not be written, or differs when read back.
    #[error("cannot write the snapshot's manifest")]
    Manifest(#[from] ManifestError),
    /// The store acknowledged packs that it does not list.
    #[error("the store lost {} of the packs that it had acknowledged; the first is {}", .0.len(), .0.first().map(|p| p.hash.to_string()).unwrap_or_default())]
    Lost(Vec<PackName>),
    /// A required object is missing after its put, or differs when read back: its key and the fault.
    #[error("the store does not give back what it acknowledged: {0} {1}")]
    NotReadBack(String, &'static str),
    /// The epoch ended before the manifest was stored, so the manifest is not valid.
    #[error("the run took longer than its epoch allows; the snapshot was stored at {stored}, after {until}")]
    TooLate {
        /// The time at which the store received it.
        stored: Timestamp,
        /// The last time at which it would have been valid.
        until: Timestamp,
    },
}

/// The objects stored in one domain for a snapshot.
#[derive(Debug, Clone)]
pub struct NewDomain {
    /// The domain.
    pub domain: NameId,
    /// The domain's name, for the body.
    pub name: String,
    /// All index objects of the domain.
    pub index: Vec<ObjectHash>,
    /// The root objects of its scan caches.
    pub cache: Vec<ObjectHash>,
}

/// An item, and the packs that its streams refer to.
#[derive(Debug, Clone)]
pub struct NewItem {
    /// The item.
    pub item: Item,
    /// Its domain and packs, if it has streams.
    pub packs: Option<(NameId, PackRefs)>,
}

/// A snapshot that is ready to be committed.
#[derive(Debug)]
pub struct NewSnapshot {
    /// The plan's name.
    pub plan: String,
    /// The machine that ran the backup.
    pub host: String,
    /// The time at which the run began.
    pub started: Timestamp,
    /// The time by which the next run should have ended.
    pub next_before: Option<Timestamp>,
    /// The items.
    pub items: Vec<NewItem>,
    /// The domains.
    pub domains: Vec<NewDomain>,
    /// The bad packs of this epoch that have copies.
    pub heals: Vec<Heal>,
    /// The revocations that the writer knows.
    pub trust: Vec<ObjectHash>,
    /// The writer's state to store.
    pub state: WriterState,
}

/// Commits snapshots of one plan into one epoch.
#[derive(Debug)]
pub struct Committer<'a> {
    /// The store, clock and reporter.
    pub engine: &'a PipelineContext,
    /// The repository's id, from the writer's key.
    pub repository: crate::format::ids::RepositoryId,
    /// The key that turns names into ids.
    pub names: &'a NamesKey,
    /// The writer's signing key.
    pub signing: &'a SigningKey,
    /// The writer's own signers, under which the manifest must verify when it is read back.
    pub signers: &'a Signers,
    /// The epoch that the snapshot belongs to.
    pub epoch: &'a VerifiedEpoch,
    /// The epoch's secret.
    pub secret: &'a EpochSecret,
    /// The snapshots so far.
    pub chain: &'a Chain,
    /// The last moment, by the store's clock, at which a manifest of this epoch is valid.
    pub commits_until: Timestamp,
}

impl CommitError {
    /// True if other bytes are in the place of an object whose name is the hash of its content.
    fn is_overwritten(&self) -> bool {
        match self {
            Self::NotReadBack(_, fault) => *fault == DIFFERS,
            Self::Store(error) => matches!(error.kind, StoreErrorKind::Corrupt(_)),
            _ => false,
        }
    }
}

/// A committed snapshot.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its sequence.
    pub seq: u64,
    /// Its hash: the new head.
    pub head: ObjectHash,
    /// The envelope of its manifest.
    pub envelope: Envelope,
    /// Snapshots that other runs of the plan committed meanwhile, with the same sequence or a later one.
    pub concurrent: Vec<(u64, ObjectHash)>,
}

impl Committer<'_> {
    /// Commits `draft`.
    pub async fn commit(&self, draft: NewSnapshot) -> Result<Committed, CommitError> {
        let path = self.epoch.path();
        let heads = self.chain.heads();
        let (previous, seq) = (self.chain.parents(), self.chain.next_seq());
        let earliest = heads.iter().map(|head| head.envelope().finished).max();

        let (state, etags) = self.store_state(&draft.state).await?;
        kill_point("backup.state.stored");
        let needed = packs_by_domain(&draft.items);
        let listed = self.listed_packs(&needed).await?;
        kill_point("backup.packs.present");
        let items = self.public_items(&draft.items, etags, &listed).await?;
        kill_point("backup.needs.stored");
        let body = self.body(&draft, seq);
        let (sealed, body) = body.seal(&path, self.epoch.recipient())?;
        let body_size = sealed.bytes().len() as u64;
        kill_point("backup.body.sealed");
        self.put_and_read_back(&sealed).await?;
        kill_point("backup.body.stored");

        let list = |pick: fn(&NewDomain) -> &Vec<ObjectHash>| -> Vec<DomainObjects> {
            let named = draft.domains.iter().filter(|domain| !pick(domain).is_empty());
            named
                .map(|domain| DomainObjects { domain: domain.domain, objects: pick(domain).clone() })
                .collect()
        };
        // The local clock may be behind the one that stamped a parent; a child must not end before
        // its parent.
        let now = self.engine.runtime().clock.now();
        let finished = earliest.map_or(now, |earliest| now.max(earliest)).max(draft.started);
        let envelope = Envelope {
            repository: self.repository,
            writer: path.writer,
            plan: path.plan,
            epoch: path.epoch,
            seq,
            previous,
            started: draft.started,
            finished,
            next_before: draft.next_before,
            index: list(|domain| &domain.index),
            cache: list(|domain| &domain.cache),
            state: vec![state],
            body,
            body_size,
            items,
            heals: draft.heals,
            trust: draft.trust,
        };
        let (sealed, head) = envelope.seal(self.signing)?;
        kill_point("backup.manifest.sealed");
        self.put(&sealed).await?;
        kill_point("backup.manifest.stored");
        let concurrent = self.verify_snapshot(&sealed, &needed).await?;
        tracing::debug!(snapshot = %head, seq, "snapshot committed");
        Ok(Committed { seq, head, envelope, concurrent })
    }

    async fn put(&self, object: &SealedObject) -> Result<(), StoreError> {
        self.engine.put(object).await?;
        self.engine.reporter().stored(object.bytes().len() as u64, false);
        Ok(())
    }

    /// Stores a required object that no listing of packs covers, and reads it back.
    async fn put_and_read_back(&self, object: &SealedObject) -> Result<(), CommitError> {
        self.put(object).await?;
        self.read_back(object).await.map(drop)
    }

    async fn read_back(&self, object: &SealedObject) -> Result<Bytes, CommitError> {
        match self.engine.store().get(object.key(), object.bytes().len() as u64).await {
            Ok(bytes) if bytes == *object.bytes() => Ok(bytes),
            Ok(_) => Err(unstored(object, DIFFERS)),
            Err(error) if error.kind.is_absence() => Err(unstored(object, "is not there as it was put")),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the list of each item's packs, with their ETags where those say something.
    async fn public_items(
        &self,
        items: &[NewItem],
        store: Option<StoreTag>,
        listed: &BTreeMap<NameId, Vec<(ObjectHash, EtagPrint)>>,
    ) -> Result<Vec<PublicItem>, CommitError> {
        let mut public = Vec::with_capacity(items.len());
        for NewItem { item, packs } in items {
            let mut needs = None;
            if let Some((domain, packs)) = packs {
                let mut packs = packs.clone();
                if let (Some(store), Some(listed)) = (store, listed.get(domain)) {
                    packs = packs.with_etags(store, |pack| {
                        let at = listed.binary_search_by_key(pack, |(hash, _)| *hash);
                        at.map_or_else(|_| EtagPrint::default(), |at| listed[at].1)
                    });
                }
                needs = Some(Needs { domain: *domain, list: self.store_list(packs, *domain).await? });
            }
            public.push(PublicItem::new(item.id, item.state, needs));
        }
        Ok(public)
    }

    /// Stores a list of packs under its hash, which is the same for the same packs. If other bytes are there, an
    /// older snapshot's list was overwritten, and this one is stored under another name.
    async fn store_list(&self, mut packs: PackRefs, domain: NameId) -> Result<ObjectHash, CommitError> {
        let mut tries = MAX_LIST_NAMES;
        loop {
            let sealed = packs.seal(&self.epoch.path(), domain);
            let error = match self.put_and_read_back(&sealed).await {
                Ok(()) => return Ok(sealed.hash()),
                Err(error) => error,
            };
            tries -= 1;
            if tries == 0 || !error.is_overwritten() {
                return Err(error);
            }
            let what = "other bytes are in the place of this list of packs: it was overwritten or damaged. This \
                        snapshot's list is stored under another name; kbak verify names the older snapshots";
            self.engine.reporter().warn(sealed.key().to_string(), what);
            packs = packs.renamed(sealed.hash());
        }
    }

    /// Stores the state. Returns the store's tag if the store lists the MD5 of the state as its ETag: only
    /// then does an ETag tell that a pack was overwritten.
    async fn store_state(
        &self,
        state: &WriterState,
    ) -> Result<(DomainObjects, Option<StoreTag>), CommitError> {
        let domain = self.names.id("domain", state::DOMAIN);
        let sealed = state.seal(&self.epoch.path(), domain, &self.secret.domain(state::DOMAIN))?;
        self.put(&sealed).await?;
        let page = self.engine.store().list(sealed.key().as_str(), None).await?;
        let entry = page.entries.iter().find(|entry| entry.key == *sealed.key());
        let tells_content = entry.is_some_and(|entry| entry.has_md5_of(sealed.bytes()));
        let tag = tells_content.then(|| StoreTag::of(&self.engine.store().describe()));
        Ok((DomainObjects { domain, objects: vec![sealed.hash()] }, tag))
    }

    fn body(&self, draft: &NewSnapshot, seq: u64) -> Body {
        let path = self.epoch.path();
        let domains: BTreeMap<NameId, String> =
            draft.domains.iter().map(|domain| (domain.domain, domain.name.clone())).collect();
        Body {
            kind: "body".into(),
            repository: self.repository,
            writer: path.writer,
            plan: path.plan,
            epoch: path.epoch,
            seq,
            plan_name: draft.plan.clone(),
            names_key: names_key_text(self.names),
            tool: concat!("kbak ", env!("CARGO_PKG_VERSION")).into(),
            host: draft.host.clone(),
            domains,
            items: draft.items.iter().map(|new| new.item.clone()).collect(),
        }
    }

    /// Returns the ETags of the packs of each domain. Fails if the store does not list one of them.
    async fn listed_packs(
        &self,
        needed: &BTreeMap<NameId, PackRefs>,
    ) -> Result<BTreeMap<NameId, Vec<(ObjectHash, EtagPrint)>>, CommitError> {
        let (store, path) = (self.engine.store(), self.epoch.path());
        let mut listed = BTreeMap::new();
        for (domain, packs) in needed {
            let loader = DomainIndexLoader { store, path, domain: *domain, reporter: self.engine.reporter() };
            let found = loader.compare(packs).await?;
            if !found.missing.is_empty() {
                return Err(CommitError::Lost(found.missing));
            }
            listed.insert(*domain, found.etags);
        }
        Ok(listed)
    }

    /// Verifies the snapshot as a later reader would: lists, reads and checks it. Returns the snapshots that
    /// other runs committed since this one began.
    async fn verify_snapshot(
        &self,
        sealed: &SealedObject,
        needed: &BTreeMap<NameId, PackRefs>,
    ) -> Result<Vec<(u64, ObjectHash)>, CommitError> {
        let (store, path) = (self.engine.store(), self.epoch.path());
        let Some(entry) = listing::find(store, sealed.key()).await? else {
            return Err(unstored(sealed, "is not listed"));
        };
        let bytes = self.read_back(sealed).await?;
        Manifest::open(bytes, &path, sealed.key().name(), self.signers)?;
        self.listed_packs(needed).await?;
        if entry.modified > self.commits_until {
            return Err(CommitError::TooLate { stored: entry.modified, until: self.commits_until });
        }
        let (chain, signers, reporter) = (self.chain, self.signers, self.engine.reporter());
        Ok(ConcurrentSearch { store, path, chain, signers, reporter }.run(sealed.key()).await?)
    }
}

/// Returns the packs of all items of each domain.
fn packs_by_domain(items: &[NewItem]) -> BTreeMap<NameId, PackRefs> {
    let mut domains: BTreeMap<NameId, Vec<PackName>> = BTreeMap::new();
    for (domain, packs) in items.iter().filter_map(|item| item.packs.as_ref()) {
        domains.entry(*domain).or_default().extend(packs.packs());
    }
    domains.into_iter().map(|(domain, packs)| (domain, PackRefs::new(packs))).collect()
}

fn unstored(object: &SealedObject, why: &'static str) -> CommitError {
    CommitError::NotReadBack(object.key().to_string(), why)
}
