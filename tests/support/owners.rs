//! Keys, owners and a store for tests of trust, and the tools to compare with.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use kbak::format::epoch::Parameters;
use kbak::keys::epoch_file::{EpochFileState, EpochSecretStore, StateChange};
use kbak::keys::writer_key::WriterFileError;
use kbak::keys::{Identity, NoPrompt, Owner, OwnerKey, Prompt};
use kbak::report::event::{Event, Observer, Reporter};
use kbak::repository::epoch::create::{EpochDurations, EpochSettings};
use kbak::runtime::{Runtime, lock};
use zeroize::Zeroizing;

pub const DAY: u64 = 86_400;

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

/// Returns the path of a program that the tests need.
pub fn tool(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not on PATH; install it (scripts/tools) or set {variable}"))
}

pub fn run(command: &mut Command, input: &[u8]) -> Output {
    use std::io::Write;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a program that starts");
    // A program that has failed already does not read its input: its exit code gives the reason.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("an output")
}

pub fn run_ok(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let output = run(command, input);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Writes a file with mode 0600, as ssh and age require for keys.
pub fn secret_file(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    kbak::keys::private_file::create(&path, 0o600, content).expect("a new file");
    path
}

pub fn no_prompt() -> Arc<dyn Prompt> {
    Arc::new(NoPrompt)
}

/// A prompt that always answers with one passphrase.
pub struct Answers(pub &'static str);

impl Prompt for Answers {
    fn passphrase(&self, _: &str) -> Option<Zeroizing<String>> {
        Some(Zeroizing::new(self.0.to_owned()))
    }
    fn input(&self, _: &str) -> Option<String> {
        None
    }
    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }
    fn message(&self, _: &str) {}
}

/// Returns a new owner and their identity.
pub fn owner(runtime: &Runtime, name: &str) -> (Owner, Arc<Identity>) {
    let key = OwnerKey::generate(runtime, name);
    let identity = Identity::parse(name, key.to_text().as_bytes(), &no_prompt()).expect("an identity");
    (key.public(), Arc::new(identity))
}

pub fn wanted(owners: &[&Owner]) -> EpochSettings {
    EpochSettings {
        owners: owners.iter().map(|owner| (*owner).clone()).collect(),
        life: EpochDurations { max_age: 30 * DAY, max_run: DAY, keep: None },
        parameters: Parameters::default(),
        new_epoch: false,
        change_owners: true,
        prompt: no_prompt(),
    }
}

/// Keeps secrets in memory.
#[derive(Debug, Default)]
pub struct MemoryKeeper(pub Mutex<Option<EpochFileState>>);

#[async_trait::async_trait]
impl EpochSecretStore for MemoryKeeper {
    fn describe(&self) -> String {
        "memory".into()
    }
    async fn load(&self) -> Result<Option<EpochFileState>, WriterFileError> {
        Ok(lock(&self.0).clone())
    }
    async fn update(&self, change: StateChange<'_>) -> Result<(), WriterFileError> {
        let mut held = lock(&self.0);
        let changed = change(held.clone().unwrap_or_default());
        *held = Some(changed.ok_or(WriterFileError::SecretChanged { label: self.describe() })?);
        Ok(())
    }
}

/// Holds what another keeper holds and takes no change, as a mounted Secret.
#[derive(Debug)]
pub struct ReadOnlyKeeper<'a>(pub &'a MemoryKeeper);

#[async_trait::async_trait]
impl EpochSecretStore for ReadOnlyKeeper<'_> {
    fn describe(&self) -> String {
        "the mounted Secret".into()
    }
    async fn load(&self) -> Result<Option<EpochFileState>, WriterFileError> {
        self.0.load().await
    }
    async fn update(&self, _: StateChange<'_>) -> Result<(), WriterFileError> {
        let source = "read-only file system".into();
        Err(WriterFileError::NotWritable { label: self.describe(), source })
    }
}

/// Collects warnings.
#[derive(Default)]
pub struct Warnings(pub Mutex<Vec<String>>);

impl Observer for Warnings {
    fn event(&self, event: &Event) {
        if let Event::Warning { object, message, .. } = event {
            lock(&self.0).push(format!("{object}: {message}"));
        }
    }
}

pub fn collect_warnings() -> (Arc<Warnings>, Reporter) {
    let heard = Arc::new(Warnings::default());
    (heard.clone(), Reporter::new(heard))
}
