//! A store wrapper that injects faults: a script selects the operation, the key and the fault.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::{ObjectPage, PageToken, PutOutcome, Store, StoreError, StoreErrorKind, operation::Operation};
use crate::format::{layout::ObjectKey, object::SealedObject};
use crate::runtime::lock;

/// A fault of an operation. It has no effect on operations that it does not apply to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreFault {
    /// Any operation: not performed, and fails with this error. See [`Fault::unavailable`].
    Fail(StoreErrorKind),
    /// Put, get: the connection is cut after this many bytes; a put stores no object.
    Cut(u64),
    /// Any operation: performed, but answered with a 500.
    AppliedButError,
    /// Put: acknowledged but never stored.
    Forget,
    /// Get: reported as missing although it exists.
    Missing,
    /// Get: only this many bytes, as a success, which breaks the trait's contract.
    Truncate(u64),
    /// Get: this bit of the answer is flipped, counted from the first byte's lowest.
    FlipBit(u64),
    /// List: the last N objects put through this wrapper are missing.
    Stale(usize),
    /// List: the page's entries are left out, as a success.
    DropPage,
    /// List: the page is returned a second time as its own successor.
    RepeatPage,
    /// List: the page's entries are reversed.
    ReorderPage,
    /// Any operation: it takes this much longer.
    Slow(Duration),
    /// Any operation: it never ends.
    Hang,
}

impl StoreFault {
    /// Returns a 503, as a store gives under load.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::Fail(StoreErrorKind::Transient("503 Service Unavailable (injected)".into()))
    }
}

/// One line of a script.
#[derive(Debug, Clone)]
pub struct FaultRule {
    operation: Operation,
    pattern: String,
    first: u64,
    last: u64,
    fault: StoreFault,
    seen: u64,
}

impl FaultRule {
    /// Injects `fault` at the `nth` (from 1) `operation` on a key or prefix that the glob `pattern` matches.
    #[must_use]
    pub fn once(operation: Operation, pattern: &str, nth: u64, fault: StoreFault) -> Self {
        Self { operation, pattern: pattern.into(), first: nth, last: nth, fault, seen: 0 }
    }

    /// Injects `fault` from the `nth` such operation on, for ever.
    #[must_use]
    pub fn from(operation: Operation, pattern: &str, nth: u64, fault: StoreFault) -> Self {
        Self { last: u64::MAX, ..Self::once(operation, pattern, nth, fault) }
    }
}

/// Forwards all operations except those that its script breaks.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn Store>,
    script: Mutex<FaultScript>,
}

#[derive(Debug, Default)]
struct FaultScript {
    rules: Vec<FaultRule>,
    fired: u64,
    put: Vec<String>,
    repeated_page: Option<ObjectPage>,
}

impl FaultScript {
    fn next_fault(&mut self, operation: Operation, object: &str) -> Option<StoreFault> {
        let mut hit = None;
        for rule in &mut self.rules {
            if rule.operation == operation && matches_pattern(&rule.pattern, object) {
                rule.seen += 1;
                if hit.is_none() && (rule.first..=rule.last).contains(&rule.seen) {
                    hit = Some(rule.fault.clone());
                }
            }
        }
        self.fired += u64::from(hit.is_some());
        hit
    }
}

/// An operation, with the fault that the script gives it.
struct Broken<'a> {
    store: &'a dyn Store,
    operation: Operation,
    object: &'a str,
    fault: Option<StoreFault>,
}

impl Broken<'_> {
    /// Applies a fault's effect after the operation: the answer is lost.
    fn end<T>(&self, value: T) -> Result<T, StoreError> {
        if self.fault != Some(StoreFault::AppliedButError) {
            return Ok(value);
        }
        Err(self.error(StoreErrorKind::Transient("500 Internal Error (injected)".into())))
    }

    fn error(&self, kind: StoreErrorKind) -> StoreError {
        StoreError::new(self.operation, self.object, self.store.describe(), kind)
    }

    fn cut(&self, after: u64) -> StoreError {
        self.error(StoreErrorKind::Transient(format!("connection cut after {after} bytes (injected)")))
    }
}

impl FaultStore {
    /// Wraps `inner`. The first rule that matches an operation applies.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, rules: Vec<FaultRule>) -> Self {
        Self { inner, script: Mutex::new(FaultScript { rules, ..FaultScript::default() }) }
    }

    /// Returns the number of operations that were broken so far; 0 means that no rule matched.
    pub fn fired(&self) -> u64 {
        self.lock().fired
    }

    /// Replaces the script, for instance by an empty one to end the faults.
    pub fn set(&self, rules: Vec<FaultRule>) {
        self.lock().rules = rules;
    }

    fn lock(&self) -> MutexGuard<'_, FaultScript> {
        lock(&self.script)
    }

    /// Returns the fault of this operation, after its effect before it: failure or delay.
    async fn begin<'a>(&'a self, operation: Operation, object: &'a str) -> Result<Broken<'a>, StoreError> {
        let fault = self.lock().next_fault(operation, object);
        let call = Broken { store: &*self.inner, operation, object, fault };
        match &call.fault {
            Some(StoreFault::Fail(kind)) => return Err(call.error(kind.clone())),
            Some(StoreFault::Slow(time)) => tokio::time::sleep(*time).await,
            Some(StoreFault::Hang) => std::future::pending().await,
            _ => {}
        }
        Ok(call)
    }

    async fn read(
        &self,
        operation: Operation,
        key: &ObjectKey,
        body: impl Future<Output = Result<Bytes, StoreError>>,
    ) -> Result<Bytes, StoreError> {
        let call = self.begin(operation, key.as_str()).await?;
        if call.fault == Some(StoreFault::Missing) {
            return Err(call.error(StoreErrorKind::NotFound));
        }
        let body = body.await?;
        let body = match &call.fault {
            Some(StoreFault::Cut(at)) => return Err(call.cut((*at).min(body.len() as u64))),
            Some(StoreFault::Truncate(at)) => {
                body.slice(..usize::try_from(*at).unwrap_or(usize::MAX).min(body.len()))
            }
            Some(StoreFault::FlipBit(bit)) => flip(&body, *bit),
            _ => body,
        };
        call.end(body)
    }

    fn page(&self, fault: Option<&StoreFault>, mut page: ObjectPage) -> ObjectPage {
        match fault {
            Some(StoreFault::DropPage) => page.entries.clear(),
            Some(StoreFault::ReorderPage) => page.entries.reverse(),
            Some(StoreFault::RepeatPage) => {
                self.lock().repeated_page = Some(page.clone());
                page.next = page.next.or_else(|| Some(PageToken("again".into())));
            }
            Some(StoreFault::Stale(count)) => {
                let script = self.lock();
                let newest: HashSet<&str> =
                    script.put.iter().rev().take(*count).map(String::as_str).collect();
                page.entries.retain(|entry| !newest.contains(entry.key.as_str()));
            }
            _ => {}
        }
        page
    }
}

fn flip(body: &Bytes, bit: u64) -> Bytes {
    let mut bytes = body.to_vec();
    if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| bytes.get_mut(at)) {
        *byte ^= 1 << (bit % 8);
    }
    bytes.into()
}

/// Returns `true` if `text` matches `pattern`, in which `*` stands for any text.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut tail) = text.strip_prefix(head) else { return false };
    loop {
        if matches_pattern(rest, tail) {
            return true;
        }
        let mut left = tail.chars();
        if left.next().is_none() {
            return false;
        }
        tail = left.as_str();
    }
}

#[async_trait]
impl Store for FaultStore {
    forward_to_inner!();

    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        let key = object.key().as_str();
        let call = self.begin(Operation::Put, key).await?;
        match call.fault {
            Some(StoreFault::Cut(at)) => return Err(call.cut(at)),
            Some(StoreFault::Forget) => return Ok(PutOutcome::Created),
            _ => {}
        }
        let put = self.inner.put(object).await?;
        self.lock().put.push(key.to_owned());
        call.end(put)
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        self.read(Operation::Get, key, self.inner.get(key, limit)).await
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.read(Operation::GetRange, key, self.inner.get_range(key, range)).await
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError> {
        let repeated_page = self.lock().repeated_page.take();
        if let Some(page) = repeated_page {
            return Ok(page);
        }
        let call = self.begin(Operation::List, prefix).await?;
        let page = self.inner.list(prefix, from).await?;
        call.end(self.page(call.fault.as_ref(), page))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let call = self.begin(Operation::Delete, key.as_str()).await?;
        call.end(self.inner.delete(key).await?)
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let call = self.begin(Operation::Now, "").await?;
        call.end(self.inner.now().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::matches_pattern;

    #[test]
    fn star_in_a_pattern_matches_any_text() {
        for (pattern, text, whether) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("a/*", "a/b/c", true),
            ("*/packs/*", "w/p/packs/ab", true),
            ("*/packs/*", "w/p/index/ab", false),
            ("kbak.json", "kbak.json", true),
            ("kbak.json", "kbak.jsons", false),
            ("*.json", "a.json.b", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), whether, "{pattern} {text}");
        }
    }
}
