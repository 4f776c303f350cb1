//! A store with any number of rubbish objects, which takes no memory for them: their keys are computed when they
//! are listed. Each request takes a given time, and is counted by the place that it is about.

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
    /// Pages whose last entry is rubbish of the place.
    pub pages: BTreeMap<&'static str, u64>,
    /// Reads of rubbish objects.
    pub gets: BTreeMap<&'static str, u64>,
}

/// Adds rubbish to the listings of another store.
pub struct JunkStore {
    inner: Arc<dyn Store>,
    places: Vec<JunkPlace>,
    count: u32,
    latency: Duration,
    requests: Mutex<Requests>,
}

impl JunkStore {
    /// Adds `count` objects in each of `places`.
    pub fn new(inner: Arc<dyn Store>, mut places: Vec<JunkPlace>, count: u32, latency: Duration) -> Self {
        places.sort_by_key(|place| (place.key)(0));
        for place in &places {
            let keys = [0, 1, count / 2, count - 1].map(|number| (place.key)(number));
            assert!(keys.is_sorted() && keys.iter().all(|key| ObjectKey::parse(key).is_some()), "{keys:?}");
        }
        Self { inner, places, count, latency, requests: Mutex::default() }
    }

    /// Returns the requests since the last call.
    pub fn take_requests(&self) -> Requests {
        std::mem::take(&mut lock(&self.requests))
    }

    fn place_of(&self, key: &str) -> Option<&JunkPlace> {
        self.places
            .iter()
            .find(|place| self.number_after(place, key, false).is_some_and(|at| (place.key)(at) == key))
    }

    /// Returns the number of the first object of a place that is at `key` or after it.
    fn number_after(&self, place: &JunkPlace, key: &str, beyond: bool) -> Option<u32> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = (low + high) / 2;
            let here = (place.key)(middle);
            if here.as_str() < key || (beyond && here == key) { low = middle + 1 } else { high = middle }
        }
        (low < self.count).then_some(low)
    }

    /// Returns up to a page of rubbish under `prefix`, after `from`.
    fn junk(&self, prefix: &str, from: Option<&str>, most: usize) -> Vec<(ListedObject, &'static str)> {
        let mut found = Vec::new();
        for place in &self.places {
            let start = match from {
                Some(from) if from >= prefix => self.number_after(place, from, true),
                _ => self.number_after(place, prefix, false),
            };
            for number in start.unwrap_or(self.count)..self.count {
                let key = (place.key)(number);
                if found.len() >= most || !key.starts_with(prefix) {
                    break;
                }
                let key = ObjectKey::parse(&key).expect("a key");
                let modified = Timestamp::UNIX_EPOCH;
                let entry = ListedObject { key, size: CLAIMED, is_file: true, modified, etag: None };
                found.push((entry, place.name));
            }
        }
        found
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
        let junk = self.junk(prefix, from.map(|from| from.0.as_str()), MAX_PAGE + 1);
        let mut entries: Vec<(ListedObject, Option<&'static str>)> =
            junk.into_iter().map(|(entry, place)| (entry, Some(place))).collect();
        if let (true, Some(last)) = (more, inner_page.entries.last()) {
            entries.retain(|(entry, _)| entry.key < last.key);
        }
        entries.extend(inner_page.entries.into_iter().map(|entry| (entry, None)));
        entries.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
        more |= entries.len() > MAX_PAGE;
        entries.truncate(MAX_PAGE);
        if let Some(place) = entries.last().and_then(|(_, place)| *place) {
            *lock(&self.requests).pages.entry(place).or_default() += 1;
        }
        let next = entries.last().filter(|_| more).map(|(entry, _)| PageToken(entry.key.as_str().to_owned()));
        let entries = entries.into_iter().map(|(entry, _)| entry).collect();
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
