//! Signed documents and pins: any changed, moved or respelled document is rejected, and OpenSSH
//! agrees on the valid ones.

use std::process::Command;

use bytes::Bytes;
use kbak::format::revocation::Revocation;
use kbak::format::sign::{Namespace, PublicKey, SignError, SignedDocument, SigningKey};
use kbak::format::signers::{Signer, Signers, SignersErrorKind};
use proptest::prelude::*;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::support::owners::{run, run_ok, secret_file, tool};

const WHO: &str = "000102030405060708090a0b0c0d0e0f";

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32]))
}

fn pin(key: &SigningKey, namespaces: &[Namespace]) -> Signers {
    let mut signers = Signers::default();
    signers.add(Signer::new(WHO, namespaces, key.public(), "test"));
    signers
}

fn document(key: &SigningKey, namespace: Namespace) -> Bytes {
    key.sign_document(namespace, &json!({"writer": WHO, "seq": 42, "text": "ä"})).expect("a document")
}

fn accepts(bytes: &[u8], signers: &Signers, namespace: Namespace) -> Result<Value, SignError> {
    SignedDocument::parse(Bytes::copy_from_slice(bytes))?.verify(signers, WHO, namespace)?.parse()
}

#[test]
fn signed_document_reads_back_and_any_flipped_bit_is_rejected() {
    let key = key(1);
    let signers = pin(&key, &[Namespace::Manifest]);
    let good = document(&key, Namespace::Manifest);
    let value = accepts(&good, &signers, Namespace::Manifest).expect("a good document");
    assert_eq!((value["type"].as_str(), value["seq"].as_u64()), (Some("manifest"), Some(42)));
    for bit in 0..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(accepts(&bad, &signers, Namespace::Manifest).is_err(), "bit {bit} was flipped unseen");
    }
    for cut in 0..good.len() {
        assert!(accepts(&good[..cut], &signers, Namespace::Manifest).is_err(), "cut at {cut} unseen");
    }
}

#[test]
fn respelled_signature_is_refused() {
    let key = key(1);
    let signers = pin(&key, &[Namespace::Epoch]);
    let good = String::from_utf8(document(&key, Namespace::Epoch).to_vec()).expect("text");
    let (line, armor) = good.split_once('\n').expect("two parts");
    let body: String = armor.lines().filter(|l| !l.starts_with('-')).collect();
    let rewrapped: String =
        body.as_bytes().chunks(64).map(|c| format!("{}\n", String::from_utf8_lossy(c))).collect();
    let (begin, end) = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----");
    let variants = [
        format!("{line}\n{begin}\n{rewrapped}{end}\n"),
        format!("{line}\n{begin}\n{body}\n{end}\n"),
        format!("{good}x"),
        format!("{good}\n"),
        good.trim_end().to_owned(),
        good.replace('\n', "\r\n"),
        format!("{line}\n\n{armor}"),
        format!("{line}\n {armor}"),
        format!("\n{good}"),
    ];
    for variant in &variants {
        assert!(accepts(variant.as_bytes(), &signers, Namespace::Epoch).is_err(), "taken:\n{variant}");
    }
    // The risk is real: OpenSSH accepts the rewrapped signature.
    let folder = tempfile::tempdir().expect("a folder");
    let sig = format!("{begin}\n{rewrapped}{end}\n");
    assert!(ssh_verifies(folder.path(), &signers, Namespace::Epoch, line, &sig));
}

fn ssh_verifies(
    folder: &std::path::Path,
    signers: &Signers,
    namespace: Namespace,
    line: &str,
    sig: &str,
) -> bool {
    let (pin, sig_file) = (folder.join("kbak.pub"), folder.join("sig"));
    std::fs::write(&pin, signers.to_text()).expect("written");
    std::fs::write(&sig_file, sig).expect("written");
    let mut verify = Command::new(tool("ssh-keygen", "KBAK_TEST_SSH_KEYGEN"));
    verify
        .args(["-Y", "verify", "-I", WHO, "-n", namespace.as_str(), "-f"])
        .arg(&pin)
        .arg("-s")
        .arg(&sig_file);
    run(&mut verify, format!("{line}\n").as_bytes()).status.success()
}

#[test]
fn our_signature_is_verified_by_ssh_keygen() {
    let key = key(2);
    let signers = pin(&key, &Namespace::WRITER);
    let text = String::from_utf8(document(&key, Namespace::Manifest).to_vec()).expect("text");
    let (line, sig) = text.split_once('\n').expect("two parts");
    let folder = tempfile::tempdir().expect("a folder");
    assert!(ssh_verifies(folder.path(), &signers, Namespace::Manifest, line, sig));
    assert!(!ssh_verifies(folder.path(), &signers, Namespace::Epoch, line, sig), "another namespace");
    assert!(!ssh_verifies(folder.path(), &signers, Namespace::Manifest, &format!("{line} "), sig));
    let narrow = pin(&key, &[Namespace::Epoch]);
    assert!(!ssh_verifies(folder.path(), &narrow, Namespace::Manifest, line, sig), "namespaces= bounds");
}

#[test]
fn ssh_keygen_signature_is_accepted_and_equals_ours() {
    let folder = tempfile::tempdir().expect("a folder");
    let ssh_keygen = tool("ssh-keygen", "KBAK_TEST_SSH_KEYGEN");
    for passphrase in ["", "correct horse"] {
        let file = folder.path().join(format!("id{}", passphrase.len()));
        run_ok(
            Command::new(&ssh_keygen)
                .args(["-q", "-t", "ed25519", "-C", "somebody", "-N", passphrase, "-f"])
                .arg(&file),
            b"",
        );
        let pem = std::fs::read_to_string(&file).expect("a key");
        if !passphrase.is_empty() {
            assert!(SigningKey::from_openssh(&pem, None).is_err());
            assert!(SigningKey::from_openssh(&pem, Some("wrong")).is_err());
        }
        let key = SigningKey::from_openssh(&pem, Some(passphrase)).expect("a key that opens");
        let public = std::fs::read_to_string(file.with_extension("pub")).expect("a public key");
        assert_eq!(public.parse::<PublicKey>().expect("a public key"), key.public());

        // The signature of ssh-keygen with the key that we exported again.
        let ours =
            secret_file(folder.path(), &format!("again{}", passphrase.len()), key.to_openssh().as_bytes());
        let line = b"{\"type\":\"trust\",\"requires\":[],\"a\":1}\n";
        let sign = ["-q", "-Y", "sign", "-n", "kbak-trust-v1", "-f"];
        let sig = run_ok(Command::new(&ssh_keygen).args(sign).arg(&ours).arg("-"), line);
        assert_eq!(String::from_utf8_lossy(&sig), key.sign(Namespace::Trust, line).expect("a signature"));
        let document = [line.as_slice(), &sig].concat();
        let signers = pin(&key, &[Namespace::Trust]);
        assert_eq!(accepts(&document, &signers, Namespace::Trust).expect("taken")["a"], 1);
    }
}

#[test]
fn signature_is_accepted_only_for_its_key_writer_and_namespace() {
    let (key, other) = (key(3), key(4));
    let good = document(&key, Namespace::Manifest);
    let all = Namespace::ALL;
    let refused = |signers: &Signers, namespace| accepts(&good, signers, namespace).unwrap_err();
    assert!(matches!(refused(&pin(&key, &all), Namespace::Epoch), SignError::Namespace { .. }));
    assert!(matches!(refused(&pin(&other, &all), Namespace::Manifest), SignError::Unpinned { .. }));
    assert!(matches!(
        refused(&pin(&key, &Namespace::OWNER), Namespace::Manifest),
        SignError::Unpinned { .. }
    ));
    assert!(matches!(refused(&Signers::default(), Namespace::Manifest), SignError::Unpinned { .. }));
    let mut elsewhere = Signers::default();
    elsewhere.add(Signer::new("ff", &all, key.public(), ""));
    assert!(matches!(refused(&elsewhere, Namespace::Manifest), SignError::Unpinned { .. }));

    // Another key's signature under this key's name.
    let (mine, theirs) = (document(&key, Namespace::Epoch), document(&other, Namespace::Epoch));
    let line = memchr::memchr(b'\n', &mine).expect("a line") + 1;
    let forged = [&mine[..line], &theirs[line..]].concat();
    assert!(matches!(accepts(&forged, &pin(&key, &all), Namespace::Epoch), Err(SignError::Unpinned { .. })));
}

#[test]
fn key_that_the_pin_revokes_signs_no_records() {
    let key = key(6);
    let mut signers = pin(&key, &Namespace::ALL);
    signers.revoke(Revocation { key: key.public(), last_good: Vec::new(), why: "stolen".into() });
    let read = Signers::parse(&signers.to_text()).expect("the pin");
    for namespace in Namespace::ALL {
        let signed = document(&key, namespace);
        // The chain decides which of its epochs and manifests were good before.
        let of_chain = matches!(namespace, Namespace::Epoch | Namespace::Manifest);
        for signers in [&signers, &read] {
            let accepted = accepts(&signed, signers, namespace);
            assert_eq!(accepted.is_ok(), of_chain, "{namespace}");
            assert!(of_chain || matches!(accepted, Err(SignError::Unpinned { .. })), "{namespace}");
        }
    }
}

#[test]
fn line_of_wrong_type_or_unknown_feature_is_refused() {
    let key = key(5);
    let signers = pin(&key, &Namespace::ALL);
    let signed = |line: &str| {
        let line = format!("{line}\n");
        line.clone() + &key.sign(Namespace::Epoch, line.as_bytes()).expect("a signature")
    };
    let taken = |line: &str| accepts(signed(line).as_bytes(), &signers, Namespace::Epoch);
    assert!(taken(r#"{"type":"epoch","requires":[],"unknown":{"x":[1]}}"#).is_ok());
    assert!(taken(r#"{"type":"epoch"}"#).is_ok());
    let newer = taken(r#"{"type":"epoch","requires":["tape"]}"#).unwrap_err();
    assert!(newer.is_newer() && newer.to_string().contains("tape"), "{newer}");
    assert!(matches!(taken(r#"{"type":"manifest"}"#), Err(SignError::Type { .. })));
    for bad in [
        r#"{"type":"epoch","type":"epoch"}"#,
        r#"{"type":"epoch","x":1.5}"#,
        r#"{"type":"epoch","x":{"y":1,"y":2}}"#,
        r#"{"type":"epoch","x":9007199254740992}"#,
        r#"["epoch"]"#,
        r#"{}"#,
        "",
    ] {
        assert!(taken(bad).is_err_and(|e| !e.is_newer()), "taken: {bad}");
    }
    assert!(key.sign_document(Namespace::Epoch, &json!({"x": 0.5})).is_err(), "floats are not signed");
    assert!(key.sign_document(Namespace::Epoch, &json!({"type": "x"})).is_err(), "nor types of one's own");
    let long = "x".repeat(kbak::format::sign::MAX_LINE);
    assert!(matches!(key.sign_document(Namespace::Epoch, &json!({"x": long})), Err(SignError::TooLong(_))));
}

#[test]
fn debug_output_of_keys_reveals_no_secret() {
    let key = key(6);
    let pem = key.to_openssh();
    let shown = format!("{key:?}");
    let secret: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(shown.len() < 80 && shown.contains("SHA256:"), "{shown}");
    assert!(!secret.as_bytes().windows(12).any(|part| shown.contains(&*String::from_utf8_lossy(part))));
    assert_eq!(SigningKey::from_line(&key.to_line()).expect("a line").public(), key.public());
}

#[test]
fn pins_with_unsupported_options_are_refused() {
    let key = key(7).public();
    let line = |options: &str| Signers::parse(&format!("# c\n\n{WHO} {options} {key} somebody\n"));
    let good = line(r#"namespaces="kbak-epoch-v1,git""#).expect("a pin");
    assert_eq!(good.lookup(WHO, Namespace::Epoch).collect::<Vec<_>>(), [key]);
    assert_eq!(good.lookup(WHO, Namespace::Manifest).count(), 0);
    assert_eq!(good.lookup("else", Namespace::Epoch).count(), 0);
    assert_eq!(good.all()[0].comment, "somebody");
    assert_eq!(Signers::parse(&good.to_text()).expect("our own text"), good);

    type Kind = SignersErrorKind;
    let kind = |options: &str| line(options).map_err(|e| (e.line, e.kind)).unwrap_err();
    assert_eq!(kind(""), (3, Kind::NoNamespaces));
    assert!(matches!(kind(r#"namespaces="*""#).1, Kind::Pattern(_)));
    assert!(matches!(kind(r#"namespaces="kbak-*""#).1, Kind::Pattern(_)));
    assert!(matches!(kind(r#"namespaces="!git,kbak-epoch-v1""#).1, Kind::Pattern(_)));
    assert!(matches!(kind(r#"cert-authority,namespaces="kbak-epoch-v1""#).1, Kind::Option(_)));
    for date in ["valid-after", "valid-before"] {
        let options = format!(r#"namespaces="kbak-epoch-v1",{date}="20260101""#);
        assert!(matches!(kind(&options).1, Kind::Option(_)), "{date} must not be ignored");
    }
    assert!(matches!(kind(r#"namespaces="kbak-epoch-v1"#).1, Kind::Quote));
    for (text, what) in [
        (format!("* namespaces=\"kbak-epoch-v1\" {key}"), "every writer"),
        (format!("{WHO} namespaces=\"kbak-epoch-v1\""), "no key"),
        (format!("{WHO} namespaces=\"kbak-epoch-v1\" ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQ"), "rsa"),
        (format!("{WHO} namespaces=\"kbak-epoch-v1\" ssh-ed25519 AAAA"), "half a key"),
    ] {
        assert!(Signers::parse(&text).is_err(), "taken: {what}");
    }
    let private = format!("{WHO} namespaces=\"kbak-epoch-v1\" AGE-SECRET-KEY-1QQQ");
    let error = Signers::parse(&private).unwrap_err();
    assert!(error.kind == Kind::Private && !error.to_string().contains("QQQ"), "{error}");
}

proptest! {
    #[test]
    fn parsers_never_panic_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..300) {
        let key = key(1);
        let signers = pin(&key, &Namespace::ALL);
        prop_assert!(accepts(&bytes, &signers, Namespace::Epoch).is_err());
        let _ = Signers::parse(&String::from_utf8_lossy(&bytes));
        let good = document(&key, Namespace::Epoch);
        let at = cut.min(good.len());
        let mixed = [&good[..at], &bytes, &good[at..]].concat();
        prop_assert_eq!(accepts(&mixed, &signers, Namespace::Epoch).is_ok(), bytes.is_empty());
    }

    #[test]
    fn any_text_line_is_signed_and_verified(text in "[^\\x00-\\x1f]{0,200}") {
        let key = key(1);
        let bytes = key.sign_document(Namespace::Manifest, &json!({"text": text})).expect("a document");
        let value = accepts(&bytes, &pin(&key, &[Namespace::Manifest]), Namespace::Manifest).expect("taken");
        prop_assert_eq!(value["text"].as_str(), Some(text.as_str()));
    }
}
