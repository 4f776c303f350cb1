//! Owners' keys in all forms: age files, SSH keys, private keys in place of public ones.

use std::process::Command;
use std::sync::Arc;

use kbak::format::container::{DataIdentity, Sealer};
use kbak::format::derive::{EpochSecret, SecretKey};
use kbak::format::ids::EpochId;
use kbak::format::wrap::EpochKeys;
use kbak::keys::{
    Identity, IdentityError, Owner, OwnerKey, Recipient, RecipientError, RecipientKind, WorkFactor,
};
use proptest::prelude::*;

use crate::support::owners::{Answers, no_prompt, owner, run_ok, secret_file, tool};
use crate::support::test_repo::TestRepo;

fn ssh_key(folder: &std::path::Path, name: &str, kind: &str, passphrase: &str) -> (String, Vec<u8>) {
    let file = folder.join(name);
    let mut command = Command::new(tool("ssh-keygen", "KBAK_TEST_SSH_KEYGEN"));
    command.args(["-q", "-t", kind, "-C", "me@host", "-N", passphrase, "-f"]).arg(&file);
    if kind == "rsa" {
        command.args(["-b", "2048"]);
    }
    run_ok(&mut command, b"");
    let public = std::fs::read_to_string(file.with_extension("pub")).expect("a public key");
    (public, std::fs::read(&file).expect("a private key"))
}

#[test]
fn recipients_of_every_kind_are_parsed_to_canonical_form() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ed, _) = ssh_key(folder.path(), "ed", "ed25519", "");
    let (rsa, _) = ssh_key(folder.path(), "rsa", "rsa", "");
    let (ecdsa, _) = ssh_key(folder.path(), "ecdsa", "ecdsa", "");
    let yubikey = "age1yubikey1qwt50d05nh5vutpdzmlg5wn80xq5negm4uj9ghv0snvdd3yysf5yw3rhl3t";
    let kind = |text: &str| text.parse::<Recipient>().map(|r| r.kind().clone());
    assert_eq!(kind(&ed), Ok(RecipientKind::SshEd25519));
    assert_eq!(kind(&rsa), Ok(RecipientKind::SshRsa));
    assert_eq!(kind(yubikey), Ok(RecipientKind::Plugin("yubikey".into())));
    assert!(matches!(kind(&ecdsa), Err(RecipientError::Unsupported(_))));
    let with_comment: Recipient = ed.parse().expect("a recipient");
    let bare: Recipient = ed.rsplit_once(' ').expect("a comment").0.parse().expect("a recipient");
    assert_eq!(with_comment.id(), bare.id(), "a comment is no part of a recipient");
    for bad in ["", "age1qqqq", "ssh-ed25519", "ssh-ed25519 AAAA", "hello", "age1../../bin/sh1qqqq"] {
        assert!(bad.parse::<Recipient>().is_err(), "{bad:?} must be refused");
    }
}

#[test]
fn private_keys_given_as_recipients_are_refused_and_never_repeated() {
    let repo = TestRepo::seeded(1);
    let key = OwnerKey::generate(&repo.runtime, "me");
    let folder = tempfile::tempdir().expect("a folder");
    let (_, ssh) = ssh_key(folder.path(), "ed", "ed25519", "");
    let text = key.to_text();
    let secret = text.lines().last().expect("the identity");
    let inputs = [
        secret.to_owned(),
        secret.to_lowercase(),
        format!("  {secret}"),
        format!("{} {secret}", key.public().recipient),
        String::from_utf8(ssh).expect("text"),
        "AGE-PLUGIN-YUBIKEY-1QQQQQQ".to_owned(),
    ];
    for input in inputs {
        let error = input.parse::<Owner>().unwrap_err();
        assert_eq!(error, RecipientError::Private);
        let message = error.to_string().to_uppercase();
        let body = input.trim().to_uppercase();
        assert!(
            !body.as_bytes().windows(16).any(|p| message.contains(&*String::from_utf8_lossy(p))),
            "{message}"
        );
    }
}

#[test]
fn owner_line_holds_recipient_signing_key_and_comment() {
    let repo = TestRepo::seeded(2);
    let key = OwnerKey::generate(&repo.runtime, "Ada L.");
    let line = key.public().to_line();
    let read: Owner = line.parse().expect("our own line");
    assert_eq!(read, key.public());
    assert_eq!((read.comment.as_str(), read.name().as_str()), ("Ada L.", "Ada L."));
    let folder = tempfile::tempdir().expect("a folder");
    let (ssh, private) = ssh_key(folder.path(), "ed", "ed25519", "");
    let read: Owner = ssh.parse().expect("an SSH owner");
    let identity = Identity::parse("ed", &private, &no_prompt()).expect("an identity");
    assert_eq!(read.signing, identity.signing().map(|key| key.public()), "an ed25519 key signs, too");
    assert_eq!(read.comment, "me@host");
    let twice = format!("{line}\n# c\n{line}\n");
    assert_eq!(Owner::parse_lines(&twice), Err((3, RecipientError::Duplicate)));
}

#[test]
fn key_file_opens_only_with_its_passphrase() {
    let repo = TestRepo::seeded(3);
    let key = OwnerKey::generate(&repo.runtime, "me");
    let locked = key.encrypt("correct horse", WorkFactor::Log2(2)).expect("encrypted");
    assert!(!locked.contains("kbak-signing-key") && !locked.contains("AGE-SECRET"));
    let open = |prompt| Identity::parse("owner.key", locked.as_bytes(), &prompt);
    assert!(matches!(open(no_prompt()), Err(IdentityError::NoPassphrase(_))));
    assert!(matches!(open(Arc::new(Answers("wrong"))), Err(IdentityError::Passphrase(_))));
    let identity = open(Arc::new(Answers("correct horse"))).expect("the right passphrase");
    let public = key.public();
    assert_eq!(identity.recipients(), std::slice::from_ref(&public.recipient));
    assert_eq!(identity.signing().map(|key| key.public()), public.signing);
    let shown = format!("{identity:?}{key:?}");
    assert!(!shown.contains("SECRET"), "{shown}");
}

#[test]
fn invalid_identity_is_refused_without_showing_it() {
    let repo = TestRepo::seeded(4);
    let (public, _) = owner(&repo.runtime, "me");
    let parse = |text: &str| Identity::parse("file", text.as_bytes(), &no_prompt()).unwrap_err();
    assert!(matches!(parse(&public.recipient.to_string()), IdentityError::Public(_)));
    assert!(matches!(parse(""), IdentityError::Malformed { .. }));
    let error = parse("# x\nAGE-SECRET-KEY-1BROKEN\n");
    assert!(matches!(error, IdentityError::Malformed { line: 2, .. }));
    assert!(!error.to_string().contains("BROKEN"), "{error}");
    let plugin = "AGE-PLUGIN-KBAKNOSUCH-1QQQQQQQQQQQQQ";
    assert!(matches!(parse(plugin), IdentityError::Plugin { .. } | IdentityError::Malformed { .. }));
    let folder = tempfile::tempdir().expect("a folder");
    let (_, locked) = ssh_key(folder.path(), "locked", "ed25519", "horse");
    let ask = |prompt| Identity::parse("id", &locked, &prompt);
    assert!(matches!(ask(no_prompt()), Err(IdentityError::NoPassphrase(_))));
    assert!(matches!(ask(Arc::new(Answers("wrong"))), Err(IdentityError::Passphrase(_))));
    assert!(ask(Arc::new(Answers("horse"))).is_ok());
}

#[test]
fn owners_with_every_kind_of_key_open_their_wraps() {
    let repo = TestRepo::seeded(5);
    let folder = tempfile::tempdir().expect("a folder");
    let keys = keys();
    let epoch = EpochId([9; 16]);
    let (native, identity) = owner(&repo.runtime, "native");
    let mut pairs = vec![(native.recipient, identity)];
    for (name, kind, passphrase) in [("a", "ed25519", ""), ("b", "rsa", ""), ("c", "ed25519", "horse")] {
        let (public, private) = ssh_key(folder.path(), name, kind, passphrase);
        let prompt: Arc<dyn kbak::keys::Prompt> = Arc::new(Answers("horse"));
        let identity = Identity::parse(name, &private, &prompt).expect("an identity");
        pairs.push((public.parse().expect("a recipient"), Arc::new(identity)));
    }
    for (place, (recipient, _)) in pairs.iter().enumerate() {
        let wrap = recipient.wrap(&keys, epoch, &no_prompt()).expect("a wrap");
        assert_eq!(wrap.recipient, recipient.id());
        for (other, (_, identity)) in pairs.iter().enumerate() {
            let opened = identity.open_text(wrap.age.as_bytes());
            assert_eq!(opened.is_ok(), place == other, "{place} {other}");
        }
        let text = pairs[place].1.open_text(wrap.age.as_bytes()).expect("his own");
        assert_eq!(*text, *keys.to_text(epoch));
        assert_eq!(EpochKeys::parse(&text).expect("keys").secret, keys.secret);
    }
}

fn keys() -> EpochKeys {
    EpochKeys { identity: DataIdentity::generate(), secret: EpochSecret(SecretKey::new([7; 32])) }
}

#[test]
fn stock_age_opens_wraps_and_packs_and_reads_our_key_files() {
    let age = tool("age", "KBAK_TEST_AGE");
    let repo = TestRepo::seeded(6);
    let folder = tempfile::tempdir().expect("a folder");
    let key = OwnerKey::generate(&repo.runtime, "me");
    let keys = keys();
    let epoch = EpochId([9; 16]);
    let wrap = key.public().recipient.wrap(&keys, epoch, &no_prompt()).expect("a wrap");
    let owner_file = secret_file(folder.path(), "owner.key", key.to_text().as_bytes());
    let epoch_text = run_ok(Command::new(&age).args(["-d", "-i"]).arg(&owner_file), wrap.age.as_bytes());
    assert_eq!(epoch_text, keys.to_text(epoch).as_bytes());

    let mut sealer = Sealer::to_recipient(&keys.identity.recipient(), 1024).expect("a sealer");
    sealer.write(b"inside a pack").expect("written");
    let (pack, _) = sealer.finish().expect("sealed");
    let epoch_file = secret_file(folder.path(), "epoch.key", &epoch_text);
    assert_eq!(run_ok(Command::new(&age).args(["-d", "-i"]).arg(&epoch_file), &pack), b"inside a pack");

    // The other direction: keys and files that age-keygen makes.
    let made = run_ok(&mut Command::new(age.with_file_name("age-keygen")), b"");
    let identity = Identity::parse("age-keygen", &made, &no_prompt()).expect("age-keygen's file");
    let wrap = identity.recipients()[0].wrap(&keys, epoch, &no_prompt()).expect("a wrap");
    assert!(identity.open_text(wrap.age.as_bytes()).is_ok());
    assert!(identity.signing().is_none());
}

proptest! {
    #[test]
    fn identity_and_recipient_parsers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Identity::parse("x", &bytes, &no_prompt());
        let text = String::from_utf8_lossy(&bytes);
        let _ = text.parse::<Owner>();
        let _ = EpochKeys::parse(&text);
    }
}
