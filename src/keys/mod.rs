//! Owners: the people who can decrypt. Their public keys encrypt an epoch's keys, and their
//! private keys decrypt them. Both come from the user's input, never from a bucket.
//!
//! This matters most for plugins: the name of a plugin becomes a program that is run
//! (RUSTSEC-2024-0433). So no recipient or identity is ever parsed from a stored object.
//! Epochs name owners only by the hash of their recipient.

pub mod epoch_file;
mod identity;
mod key_file;
pub mod private_file;
mod prompt;
mod recipient;
pub mod recovery_sheet;
pub mod writer_key;

pub use identity::{Identity, IdentityError, KeyForm, OpenedWrap, open_wrap};
pub use key_file::{OwnerKey, WorkFactor};
pub use prompt::{NoPrompt, Prompt};
pub use recipient::{Owner, Recipient, RecipientError, RecipientKind};
