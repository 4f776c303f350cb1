//! A store with any number of rubbish objects, which takes no memory for them: their keys are computed when they
//! are listed. Each request takes a given time, and is counted by the place that it is about.
//!
//! Measured programs wait for it, so it is cheap: a request computes the keys of its page, and some twenty more.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use kbak::format::layout::ObjectKey;
use kbak::format::object::SealedObject;
use kbak::runtime::lock;
use kbak::store::operation::Operation;
use kbak::store::{
    ListedObject, MAX_PAGE, ObjectPage, PageToken, PutOutcome, Store, StoreError, StoreErrorKind,
};

/// The size that each rubbish object claims.
pub const CLAIMED: u64 = 1 << 20;

/// A place with rubbish: the key of an object by its number, ascending.
pub struct JunkPlace {
    pub name: &'static str,
    pub key: Box<dyn Fn(u32) -> String + Send + Sync>,
}

/// Requests by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    /// Listings whose page holds rubbish of the place, or is empty and of a folder with such rubbish.
    pub lists: BTreeMap<&'static str, u64>,
    /// Reads of rubbish objects.
    pub gets: BTreeMap<&'static str, u64>,
    /// All listings.
    pub all_lists: u64,
}

/// A place with its first and last key.
struct PlaceRange {
    place: JunkPlace,
    first: String,
    last: String,
}

/// Adds rubbish to the listings of another store.
pub struct JunkStore {
    inner: Arc<dyn Store>,
    /// Ascending; no key of one is between two of another.
    places: Vec<PlaceRange>,
    count: u32,
    latency: Duration,
    requests: Mutex<Requests>,
}

impl JunkStore {
    /// Adds `count` objects in each of `places`.
    pub fn new(inner: Arc<dyn Store>, places: Vec<JunkPlace>, count: u32, latency: Duration) -> Self {
        let range = |place: JunkPlace| {
            let keys = [0, 1, count / 2, count - 1].map(|number| (place.key)(number));
            assert!(keys.is_sorted() && keys.iter().all(|key| ObjectKey::parse(key).is_some()), "{keys:?}");
            let [first, .., last] = keys;
            PlaceRange { place, first, last }
        };
        let mut places: Vec<PlaceRange> = places.into_iter().map(range).collect();
        places.sort_by(|one, other| one.first.cmp(&other.first));
        assert!(places.is_sorted_by(|one, next| one.last < next.first), "places are apart");
        Self { inner, places, count, latency, requests: Mutex::default() }
    }

    /// Returns the requests since the last call.
    pub fn take_requests(&self) -> Requests {
        std::mem::take(&mut lock(&self.requests))
    }

    fn place_of(&self, key: &str) -> Option<&JunkPlace> {
        let range = self.places.iter().find(|range| range.last.as_str() >= key)?;
        let at = self.number_after(range, key, false)?;
        ((range.place.key)(at) == key).then_some(&range.place)
    }

    /// Returns the number of the first object of a place that is at `key` or after it.
    fn number_after(&self, range: &PlaceRange, key: &str, beyond: bool) -> Option<u32> {
        let is_before = |here: &str| here < key || (beyond && here == key);
        if is_before(&range.last) {
            return None;
        }
        let (mut low, mut high) = (0, if is_before(&range.first) { self.count } else { 0 });
        while low < high {
            let middle = (low + high) / 2;
            if is_before(&(range.place.key)(middle)) { low = middle + 1 } else { high = middle }
        }
        Some(low)
    }

    /// Returns up to a page of rubbish under `prefix`, after `from`, and counts the listing.
    fn junk(&self, prefix: &str, from: Option<&str>, most: usize) -> Vec<ListedObject> {
        let mut found = Vec::new();
        let mut places = Vec::new();
        for range in &self.places {
            let start = match from {
                Some(from) if from >= prefix => self.number_after(range, from, true),
                _ => self.number_after(range, prefix, false),
            };
            let before = found.len();
            for number in start.unwrap_or(self.count)..self.count {
                let key = (range.place.key)(number);
                if found.len() >= most || !key.starts_with(prefix) {
                    break;
                }
                let key = ObjectKey::parse(&key).expect("a key");
                let modified = Timestamp::UNIX_EPOCH;
                found.push(ListedObject { key, size: CLAIMED, is_file: true, modified, etag: None });
            }
            if found.len() > before {
                places.push(range.place.name);
            }
        }
        if found.is_empty() {
            let asked = self.places.iter().filter(|range| self.has_folder(range, prefix));
            places.extend(asked.map(|range| range.place.name));
        }
        let mut requests = lock(&self.requests);
        requests.all_lists += 1;
        for place in places {
            *requests.lists.entry(place).or_default() += 1;
        }
        found
    }

    /// True if `prefix` is a folder that one object of a place makes, or is or lies beneath the folder of an object.
    fn has_folder(&self, range: &PlaceRange, prefix: &str) -> bool {
        let key = |number: u32| (number < self.count).then(|| (range.place.key)(number));
        let is_around = |key: &String| {
            let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
            prefix.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        let at = self.number_after(range, prefix, false);
        let before = at.unwrap_or(self.count).checked_sub(1).and_then(key);
        if before.as_ref().is_some_and(is_around) {
            return true;
        }
        let Some(here) = at.and_then(key).filter(|here| here.starts_with(prefix)) else { return false };
        let next = at.and_then(|at| key(at + 1));
        is_around(&here) || next.is_none_or(|next| !next.starts_with(prefix))
    }
}

impl std::fmt::Debug for JunkStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JunkStore({:?})", self.inner)
    }
}

#[async_trait]
impl Store for JunkStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        tokio::time::sleep(self.latency).await;
        self.inner.put(object).await
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        tokio::time::sleep(self.latency).await;
        let Some(place) = self.place_of(key.as_str()) else { return self.inner.get(key, limit).await };
        *lock(&self.requests).gets.entry(place.name).or_default() += 1;
        if limit < CLAIMED {
            let kind = StoreErrorKind::TooLarge { limit };
            return Err(StoreError::new(Operation::Get, key.as_str(), self.describe(), kind));
        }
        Ok(vec![0; CLAIMED as usize].into())
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        tokio::time::sleep(self.latency).await;
        let Some(place) = self.place_of(key.as_str()) else { return self.inner.get_range(key, range).await };
        *lock(&self.requests).gets.entry(place.name).or_default() += 1;
        let end = range.end.min(CLAIMED);
        Ok(vec![0; end.saturating_sub(range.start) as usize].into())
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        tokio::time::sleep(self.latency).await;
        let inner_page = self.inner.list(prefix, from).await?;
        let mut more = inner_page.next.is_some();
        let mut entries = self.junk(prefix, from.map(|from| from.0.as_str()), MAX_PAGE + 1);
        if let (true, Some(last)) = (more, inner_page.entries.last()) {
            entries.retain(|entry| entry.key < last.key);
        }
        entries.extend(inner_page.entries);
        entries.sort_by(|one, other| one.key.cmp(&other.key));
        more |= entries.len() > MAX_PAGE;
        entries.truncate(MAX_PAGE);
        let next = entries.last().filter(|_| more).map(|entry| PageToken(entry.key.as_str().to_owned()));
        Ok(ObjectPage { entries, unknown: Vec::new(), next })
    }

    fn after(&self, key: &str) -> PageToken {
        PageToken(key.to_owned())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.inner.delete(key).await
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        tokio::time::sleep(self.latency).await;
        self.inner.now().await
    }
}
