//! A store wrapper that injects faults: a script selects the operation, the key and the fault.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use super::operation::Operation;
use super::probe::Ask;
use super::{Page, PageToken, Put, Store, StoreError, StoreErrorKind};
use crate::format::layout::ObjectKey;
use crate::format::object::Sealed;
use crate::runtime::lock;

/// A fault of an operation. It has no effect on operations that it does not apply to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
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

impl Fault {
    /// Returns a 503, as a store gives under load.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::Fail(StoreErrorKind::Transient("503 Service Unavailable (injected)".into()))
    }
}

/// One line of a script.
#[derive(Debug, Clone)]
pub struct Rule {
    operation: Operation,
    pattern: String,
    first: u64,
    last: u64,
    fault: Fault,
    seen: u64,
}

impl Rule {
    /// Injects `fault` at the `nth` (from 1) `operation` on a key or prefix that matches `pattern`, in
    /// which `*` stands for any text.
    #[must_use]
    pub fn once(operation: Operation, pattern: &str, nth: u64, fault: Fault) -> Self {
        Self { operation, pattern: pattern.into(), first: nth, last: nth, fault, seen: 0 }
    }

    /// Injects `fault` from the `nth` such operation on, for ever.
    #[must_use]
    pub fn from(operation: Operation, pattern: &str, nth: u64, fault: Fault) -> Self {
        Self { last: u64::MAX, ..Self::once(operation, pattern, nth, fault) }
    }
}

/// Forwards all operations except those that its script breaks.
pub struct FaultStore {
    inner: Arc<dyn Store>,
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    fired: u64,
    put: Vec<String>,
    again: Option<Page>,
}

impl FaultStore {
    /// Wraps `inner`. The first rule that matches an operation applies.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, rules: Vec<Rule>) -> Self {
        Self { inner, script: Mutex::new(Script { rules, ..Script::default() }) }
    }

    /// Returns the number of operations that were broken so far; 0 means that no rule matched.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.lock().fired
    }

    /// Replaces the script, for instance by an empty one to end the faults.
    pub fn set(&self, rules: Vec<Rule>) {
        self.lock().rules = rules;
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        lock(&self.script)
    }

    fn fault(&self, operation: Operation, object: &str) -> Option<Fault> {
        let mut script = self.lock();
        let mut hit = None;
        for rule in &mut script.rules {
            if rule.operation == operation && fits(&rule.pattern, object) {
                rule.seen += 1;
                if hit.is_none() && (rule.first..=rule.last).contains(&rule.seen) {
                    hit = Some(rule.fault.clone());
                }
            }
        }
        script.fired += u64::from(hit.is_some());
        hit
    }

    /// Applies a fault's effect before the operation: failure or delay.
    async fn before(
        &self,
        fault: Option<&Fault>,
        operation: Operation,
        object: &str,
    ) -> Result<(), StoreError> {
        match fault {
            Some(Fault::Fail(kind)) => Err(self.error(operation, object, kind.clone())),
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(*time).await;
                Ok(())
            }
            Some(Fault::Hang) => std::future::pending().await,
            _ => Ok(()),
        }
    }

    /// Applies a fault's effect after the operation: the answer is lost.
    fn after<T>(
        &self,
        fault: Option<&Fault>,
        operation: Operation,
        object: &str,
        value: T,
    ) -> Result<T, StoreError> {
        match fault {
            Some(Fault::AppliedButError) => {
                let kind = StoreErrorKind::Transient("500 Internal Error (injected)".into());
                Err(self.error(operation, object, kind))
            }
            _ => Ok(value),
        }
    }

    fn error(&self, operation: Operation, object: &str, kind: StoreErrorKind) -> StoreError {
        StoreError::new(operation, object, self.inner.describe(), kind)
    }

    fn cut(&self, operation: Operation, object: &str, after: u64) -> StoreError {
        let kind = StoreErrorKind::Transient(format!("connection cut after {after} bytes (injected)"));
        self.error(operation, object, kind)
    }

    fn body(
        &self,
        fault: Option<&Fault>,
        operation: Operation,
        object: &str,
        body: Bytes,
    ) -> Result<Bytes, StoreError> {
        let body = match fault {
            Some(Fault::Cut(at)) => return Err(self.cut(operation, object, (*at).min(body.len() as u64))),
            Some(Fault::Truncate(at)) => {
                body.slice(..usize::try_from(*at).unwrap_or(usize::MAX).min(body.len()))
            }
            Some(Fault::FlipBit(bit)) => flip(&body, *bit),
            _ => body,
        };
        self.after(fault, operation, object, body)
    }

    fn page(&self, fault: Option<&Fault>, mut page: Page) -> Page {
        match fault {
            Some(Fault::DropPage) => page.entries.clear(),
            Some(Fault::ReorderPage) => page.entries.reverse(),
            Some(Fault::RepeatPage) => {
                self.lock().again = Some(page.clone());
                page.next = page.next.or_else(|| Some(PageToken("again".into())));
            }
            Some(Fault::Stale(count)) => {
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
fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut tail) = text.strip_prefix(head) else { return false };
    loop {
        if fits(rest, tail) {
            return true;
        }
        let mut left = tail.chars();
        if left.next().is_none() {
            return false;
        }
        tail = left.as_str();
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({:?})", self.inner)
    }
}

#[async_trait]
impl Store for FaultStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn ask(&self) -> Option<&dyn Ask> {
        self.inner.ask()
    }

    async fn put(&self, object: &Sealed) -> Result<Put, StoreError> {
        let key = object.key().as_str();
        let fault = self.fault(Operation::Put, key);
        self.before(fault.as_ref(), Operation::Put, key).await?;
        match fault {
            Some(Fault::Cut(at)) => return Err(self.cut(Operation::Put, key, at)),
            Some(Fault::Forget) => return Ok(Put::Created),
            _ => {}
        }
        let put = self.inner.put(object).await?;
        self.lock().put.push(key.to_owned());
        self.after(fault.as_ref(), Operation::Put, key, put)
    }

    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError> {
        let fault = self.fault(Operation::Get, key.as_str());
        self.before(fault.as_ref(), Operation::Get, key.as_str()).await?;
        if fault == Some(Fault::Missing) {
            return Err(self.error(Operation::Get, key.as_str(), StoreErrorKind::NotFound));
        }
        let body = self.inner.get(key, limit).await?;
        self.body(fault.as_ref(), Operation::Get, key.as_str(), body)
    }

    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError> {
        let fault = self.fault(Operation::GetRange, key.as_str());
        self.before(fault.as_ref(), Operation::GetRange, key.as_str()).await?;
        if fault == Some(Fault::Missing) {
            return Err(self.error(Operation::GetRange, key.as_str(), StoreErrorKind::NotFound));
        }
        let body = self.inner.get_range(key, range).await?;
        self.body(fault.as_ref(), Operation::GetRange, key.as_str(), body)
    }

    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page, StoreError> {
        let again = self.lock().again.take();
        if let Some(page) = again {
            return Ok(page);
        }
        let fault = self.fault(Operation::List, prefix);
        self.before(fault.as_ref(), Operation::List, prefix).await?;
        let page = self.inner.list(prefix, from).await?;
        let page = self.page(fault.as_ref(), page);
        self.after(fault.as_ref(), Operation::List, prefix, page)
    }

    fn after(&self, key: &str) -> PageToken {
        self.inner.after(key)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let fault = self.fault(Operation::Delete, key.as_str());
        self.before(fault.as_ref(), Operation::Delete, key.as_str()).await?;
        self.inner.delete(key).await?;
        self.after(fault.as_ref(), Operation::Delete, key.as_str(), ())
    }

    async fn now(&self) -> Result<Timestamp, StoreError> {
        let fault = self.fault(Operation::Now, "");
        self.before(fault.as_ref(), Operation::Now, "").await?;
        let now = self.inner.now().await?;
        self.after(fault.as_ref(), Operation::Now, "", now)
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

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
            assert_eq!(fits(pattern, text), whether, "{pattern} {text}");
        }
    }
}
