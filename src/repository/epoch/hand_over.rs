//! Epochs whose keys are made outside the writer (`kbak epoch new --outside`). An owner makes
//! the keys on their own machine and gives the writer the public key, K_epoch and the wraps.
//! The writer signs and stores epoch.json and never holds the private key.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::format::derive::{EpochSecret, SecretKey};
use crate::format::epoch::{InlineWrap, SecretOrigin};
use crate::format::ids::{EpochId, RecipientId, from_hex, to_hex};
use crate::format::json;
use crate::repository::epoch::create::NewEpoch;
use crate::repository::epoch::error::CreateEpochError;

#[derive(Serialize, Deserialize)]
struct HandOver {
    kbak: String,
    version: u64,
    epoch: EpochId,
    secret: String,
    recipient: String,
    wraps: Vec<InlineWrap>,
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

const HAND_OVER: &str = "epoch hand-over";

impl NewEpoch {
    /// Returns the hand-over file, to be stored on the writer's machine with mode 0600.
    #[must_use]
    #[expect(clippy::expect_used, reason = "strings and numbers always serialise")]
    pub fn to_hand_over(&self) -> Zeroizing<String> {
        let file = HandOver {
            kbak: HAND_OVER.to_owned(),
            version: 1,
            epoch: self.id,
            secret: to_hex(self.secret.0.expose()),
            recipient: self.recipient.to_string(),
            wraps: self.wraps.clone(),
        };
        Zeroizing::new(serde_json::to_string_pretty(&file).expect("a serialisable file") + "\n")
    }

    /// Reads a hand-over file.
    pub fn from_hand_over(content: &[u8]) -> Result<Self, CreateEpochError> {
        let file: HandOver =
            json::parse_secret(content).map_err(|_| CreateEpochError::HandOver("it is malformed"))?;
        if file.kbak != HAND_OVER || file.version != 1 {
            return Err(CreateEpochError::HandOver("it is another kind of file, or newer"));
        }
        let secret = from_hex::<32>(&file.secret).map_err(|_| CreateEpochError::HandOver("its secret"))?;
        let recipient = file.recipient.parse().map_err(|_| CreateEpochError::HandOver("its recipient"))?;
        if file.wraps.is_empty() {
            return Err(CreateEpochError::HandOver("it has no wraps: nobody could read the backup"));
        }
        Ok(Self {
            id: file.epoch,
            recipient,
            secret: EpochSecret(SecretKey::new(secret)),
            wraps: file.wraps.clone(),
            origin: SecretOrigin::Outside,
        })
    }

    /// Returns the epoch's id.
    #[must_use]
    pub fn id(&self) -> EpochId {
        self.id
    }

    /// Returns the recipients that it was wrapped to.
    pub fn recipients(&self) -> impl Iterator<Item = RecipientId> + '_ {
        self.wraps.iter().map(|wrap| wrap.recipient)
    }
}
