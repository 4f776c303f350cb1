//! Opens objects that only speed up the next backup (indexes, scan caches, states) and compares them
//! with the proven chunks.

use std::collections::BTreeMap;

use super::Check;
use super::finding::{Fault, ObjectKind};
use super::named_objects::{Domain, NamedObjects};
use super::proven::{Opening, Proven};
use crate::format::cache::{self, CachedGroup, MAX_CACHE};
use crate::format::derive::DomainKey;
use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::format::index::{Index, MAX_INDEX};
use crate::format::layout::{EpochObject, EpochPath, ObjectClass, ObjectKey};
use crate::format::state::{self, MAX_STATE, WriterState};
use crate::report::error::causes;
use crate::repository::fetched::{self, Fetched};
use crate::store::StoreError;

/// Most bytes that age encryption adds to a small object.
const OVERHEAD: u64 = 1 << 20;

type Wrong = Option<(Fault, String)>;

/// Opens every hint that a signed snapshot names.
pub(super) async fn check(
    check: &mut Check<'_>,
    opening: &Opening,
    wanted: &BTreeMap<EpochId, NamedObjects>,
) -> Result<(), StoreError> {
    for (id, wanted) in wanted {
        let Some((epoch, keys)) = opening.epochs.get(id) else { continue };
        let path = epoch.path();
        for (object, place) in wanted.hints() {
            let EpochObject::InDomain(domain, class, hash) = place else { continue };
            if check.findings.has(object.as_str()) {
                continue;
            }
            let name = match (opening.names.get(&(*id, domain)), class) {
                (_, ObjectClass::State) => state::DOMAIN,
                (Some(name), _) => name,
                // No snapshot that was opened gives the name of this domain.
                (None, _) => {
                    check
                        .not_checked(format!("what is in {object}: no snapshot that opens names its domain"));
                    continue;
                }
            };
            let hint = Hint { path, domain, key: keys.secret.domain(name) };
            let tagged = path.index(domain, hash, hint.key.index_tag(hash));
            let stored = if class == ObjectClass::Index { &tagged } else { object };
            if check.findings.has(stored.as_str()) {
                continue;
            }
            let wrong = match hint.read(check, stored, hash).await? {
                Err(wrong) => Some(wrong),
                Ok(sealed) => match class {
                    ObjectClass::Index => hint.index(&sealed, wanted.domains.get(&domain), &opening.proven),
                    ObjectClass::State => {
                        WriterState::open(&sealed, &hint.key).err().map(|error| unreadable(&error))
                    }
                    ObjectClass::Cache => hint.cache(check, &sealed).await?,
                    ObjectClass::Pack | ObjectClass::PackRefs | ObjectClass::Record => None,
                },
            };
            if let Some((fault, detail)) = wrong {
                if fault == Fault::Malformed {
                    check.reset(&path, domain);
                }
                check.findings.add(stored.as_str(), ObjectKind::Hint, fault, detail);
                check.mark_affected(stored.as_str(), wanted.users(object));
            }
        }
    }
    Ok(())
}

fn unreadable(error: &dyn std::error::Error) -> (Fault, String) {
    (Fault::Unreadable, causes(error))
}

/// The place of a hint, and the key that opens it.
struct Hint {
    path: EpochPath,
    domain: NameId,
    key: DomainKey,
}

impl Hint {
    async fn read(
        &self,
        check: &Check<'_>,
        object: &ObjectKey,
        hash: ObjectHash,
    ) -> Result<Result<bytes::Bytes, (Fault, String)>, StoreError> {
        let limit = MAX_INDEX.max(MAX_CACHE).max(MAX_STATE) + OVERHEAD;
        Ok(match fetched::get(&check.view.store, object, hash, limit).await? {
            Fetched::Valid(sealed) => Ok(sealed),
            Fetched::Missing => Err((Fault::Missing, "signed snapshots name it".into())),
            Fetched::Corrupt => Err((Fault::Altered, "its SHA-256 is not its name".into())),
        })
    }

    /// Checks that an index names no missing chunk in a pack that was opened.
    fn index(&self, sealed: &[u8], domain: Option<&Domain>, proven: &Proven) -> Wrong {
        let index = match Index::open(sealed, &self.key) {
            Ok(index) => index,
            Err(error) => return Some(unreadable(&error)),
        };
        let domain = domain?;
        let opened: Vec<bool> = index.packs.iter().map(|pack| domain.has_good(&pack.hash)).collect();
        let wrong = index.entries.iter().find(|entry| {
            let pack = entry.pack as usize;
            opened[pack] && !proven.has_entry(&index.packs[pack].hash, entry)
        })?;
        let pack = index.packs[wrong.pack as usize].hash;
        Some((Fault::Malformed, format!("it names a chunk in pack {pack} that is not there")))
    }

    /// Checks the root of a scan cache, and the groups that it names.
    async fn cache(&self, check: &Check<'_>, sealed: &[u8]) -> Result<Wrong, StoreError> {
        let groups = match cache::open_root(sealed, &self.key) {
            Ok(groups) => groups,
            Err(error) => return Ok(Some(unreadable(&error))),
        };
        for group in groups {
            let object = self.path.in_domain(self.domain, ObjectClass::Cache, group.object);
            let what = match self.read(check, &object, group.object).await? {
                Ok(sealed) => CachedGroup::open(&sealed, &self.key).err().map(|error| causes(&error)),
                Err((_, what)) => Some(what),
            };
            if let Some(what) = what {
                return Ok(Some((Fault::Unreadable, format!("its part {object}: {what}"))));
            }
        }
        Ok(None)
    }
}
