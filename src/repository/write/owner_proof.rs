//! Owners prove that they hold their keys: each identity opens a challenge.

use crate::format::ids::to_hex;
use crate::format::wrap::WrapError;
use crate::keys::recovery_sheet::ProvenOwner;
use crate::keys::{Identity, Owner, Prompt};
use crate::repository::error::InitError;
use crate::runtime::Runtime;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Proves owners: each identity must open a challenge encrypted to one of the recipients. An
/// identity that opens none is an error, because its holder believes to be an owner.
pub async fn prove(
    runtime: &Runtime,
    owners: &[Owner],
    identities: &[Arc<Identity>],
    prompt: &Arc<dyn Prompt>,
) -> Result<Vec<ProvenOwner>, InitError> {
    let mut used = vec![false; identities.len()];
    let mut proven = Vec::new();
    for owner in owners {
        let challenge = Zeroizing::new(to_hex(&runtime.random::<32>()));
        let (recipient, prompt, all) = (owner.recipient.clone(), prompt.clone(), identities.to_vec());
        let outcome = runtime
            .workers
            .run(move || {
                let sealed = recipient.encrypt(challenge.as_bytes(), &prompt)?;
                let answers = |identity: &Arc<Identity>| match identity.open_text(&sealed) {
                    Ok(text) => Ok(*text == *challenge),
                    Err(WrapError::WrongIdentity) => Ok(false),
                    Err(error) => Err((identity.label().to_owned(), error)),
                };
                Ok(all.iter().map(answers).collect::<Vec<_>>())
            })
            .await
            .map_err(|error: WrapError| InitError::Encrypt { owner: owner.name(), source: error })?;
        let mut opened = false;
        for (answer, used) in outcome.into_iter().zip(&mut used) {
            match answer {
                Ok(true) => (opened, *used) = (true, true),
                Ok(false) => {}
                Err((identity, source)) => return Err(InitError::Challenge { identity, source }),
            }
        }
        proven.push(ProvenOwner { owner: owner.clone(), proven: opened });
    }
    if let Some((identity, _)) = identities.iter().zip(&used).find(|(_, used)| !**used) {
        let recipients = identity.recipients().iter().map(ToString::to_string).collect();
        return Err(InitError::NotAnOwner { identity: identity.label().to_owned(), recipients });
    }
    Ok(proven)
}
