//! Owners: who can decrypt. Their public halves encrypt an epoch's keys, their private halves open
//! them; both come from the user's own input, never from a bucket.
//!
//! That matters most for plugins: the name of a plugin becomes a program that is run
//! (RUSTSEC-2024-0433), so nothing here parses a recipient or an identity out of a stored object.
//! Epochs name owners by the hash of their recipient only.

mod identity;
mod key_file;
mod recipient;

pub use identity::{Identity, IdentityError, Prompt, Silent, Via, open_wrap};
pub use key_file::{OwnerKey, WorkFactor};
pub use recipient::{Kind, Owner, Recipient, RecipientError};
