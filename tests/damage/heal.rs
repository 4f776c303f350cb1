//! What is damaged and still comes back: bad packs that a later run stored again. What is sound and
//! does not count: snapshots that a thief signed with a stolen key.

use kbak::format::record::{Record, Trust};
use kbak::format::sign::{Namespace, SigningKey};
use kbak::format::signers::Signer;
use kbak::report::failure::Exit;
use kbak::repository::open::Which;
use kbak::verify::{Depth, Fault, distrust};
use zeroize::Zeroizing;

use super::Victim;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_pack_is_stored_again_and_the_copies_are_used() {
    let packs = Victim::new().await.keys("/packs/").len();
    let mut healed = 0;
    for number in 0..packs {
        let victim = Victim::new().await;
        let key = victim.keys("/packs/")[number].clone();
        let mut bad = victim.objects[&key].to_vec();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        victim.set(&key, bad);
        let needed: Vec<u64> = {
            let verdict = victim.verify(Depth::Presence, true).await;
            assert_eq!(verdict.exit(), Exit::Damaged);
            let written = distrust(&victim.bench.view(), &victim.bench.key, &verdict).await.expect("signed");
            assert_eq!(written, 1);
            let again =
                distrust(&victim.bench.view(), &victim.bench.key, &verdict).await.expect("nothing to do");
            assert_eq!(again, 0, "one record is enough");
            verdict.findings[0].snapshots.iter().map(|one| one.sequence).collect()
        };
        victim.bench.backup(victim.folder.path()).await;
        victim.no_lie(&format!("{key} is distrusted"), false).await;
        // What the folder still holds is whole again; the changed file of the first snapshot is not.
        let now = &victim.read().await[1];
        assert_eq!(now.as_ref().ok(), Some(&victim.truth[1]), "{key}: the second snapshot");
        let verdict = victim.verify(Depth::Presence, true).await;
        if needed.contains(&2) {
            let finding = &verdict.findings[0];
            let lost: Vec<u64> = finding
                .snapshots
                .iter()
                .filter(|one| !one.items.is_empty())
                .map(|one| one.sequence)
                .collect();
            assert!(lost.iter().all(|sequence| *sequence == 1), "{finding:?}");
            assert_eq!(finding.healed, lost.is_empty(), "{finding:?}");
            assert_eq!(verdict.exit() == Exit::Safe, finding.healed);
            healed += usize::from(finding.healed);
        }
    }
    assert!(healed >= 1, "no pack was healed whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stolen_key_signed_does_not_count() {
    let mut victim = Victim::new().await;
    let writer = victim.bench.key.writer;
    let owner = SigningKey::from_seed(&Zeroizing::new([7; 32]));
    let trust = |signer: &SigningKey, last_good| {
        let body =
            Trust { key: victim.bench.key.signing.public(), last_good, why: "a node was taken".into() };
        let now = victim.bench.world.clock.now();
        Record::Trust(body).seal(victim.bench.key.repository, writer, now, signer).expect("sealed")
    };
    let hashes: Vec<_> = victim.snapshots.iter().map(|snapshot| snapshot.manifest.hash()).collect();
    let by_writer = trust(&victim.bench.key.signing.clone(), Vec::new());
    let by_owner = trust(&owner, vec![hashes[0]]);
    victim.bench.signers.add(Signer::new(&writer.to_string(), &Namespace::OWNER, owner.public(), "ada"));

    // A writer cuts nobody off.
    victim.bench.store.put(&by_writer).await.expect("stored");
    let (_, plan) = victim.bench.view().plan_ids(&Which::default()).await.expect("plans")[0];
    let view = victim.bench.view().plan(writer, plan).await.expect("a plan");
    assert_eq!(view.chain.len(), 2);
    victim.bench.store.delete(by_writer.key()).await.expect("deleted");

    victim.bench.store.put(&by_owner).await.expect("stored");
    let view = victim.bench.view().plan(writer, plan).await.expect("a plan");
    let left: Vec<_> = view.chain.iter().map(|snapshot| snapshot.manifest.hash()).collect();
    assert_eq!((left.as_slice(), view.epochs.all.len()), (&hashes[..1], 1), "the first one stays good");
    let verdict = victim.verify(Depth::Presence, false).await;
    let newest = verdict.findings.iter().find(|finding| finding.object == victim.snapshots[1].key.as_str());
    assert_eq!(newest.map(|finding| finding.fault), Some(Fault::Signature));

    // With the key in hand nothing more can be added.
    let refused = victim.bench.refused(victim.folder.path()).await;
    assert_eq!(refused.exit, Exit::Usage);
    assert!(refused.what.contains("cut off"), "{}", refused.what);
    assert!(refused.facts.iter().any(|(_, value)| value == "a node was taken"), "{refused:?}");

    // Nothing at all is good: neither the snapshots nor the epoch count.
    let all = {
        let body =
            Trust { key: victim.bench.key.signing.public(), last_good: Vec::new(), why: String::new() };
        let now = victim.bench.world.clock.now();
        Record::Trust(body).seal(victim.bench.key.repository, writer, now, &owner).expect("sealed")
    };
    victim.bench.store.put(&all).await.expect("stored");
    let view = victim.bench.view().plan(writer, plan).await.expect("a plan");
    assert_eq!((view.chain.len(), view.epochs.all.len()), (0, 0));
}
