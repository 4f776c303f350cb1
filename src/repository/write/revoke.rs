//! Stores an owner's revocation of a key.

use crate::format::ids::{ObjectHash, RepositoryId, WriterId};
use crate::format::record::Record;
use crate::format::revocation::Revocation;
use crate::format::sign::{SignError, SigningKey};
use crate::repository::epoch::create;
use crate::repository::epoch::error::CreateEpochError;
use crate::store::{Store, StoreError};
use std::sync::Arc;

/// An error while storing a revocation.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The record cannot be signed.
    #[error("the revocation cannot be signed")]
    Sign(#[from] SignError),
    /// The record was not stored.
    #[error(transparent)]
    Put(#[from] CreateEpochError),
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Signs a revocation with an owner's key and stores it in the part of a writer. Returns the record's name.
/// Fails with [`RevokeError`] if it cannot be signed or stored.
pub async fn revoke(
    store: &Arc<dyn Store>,
    (repository, writer): (RepositoryId, WriterId),
    revocation: &Revocation,
    owner: &SigningKey,
) -> Result<ObjectHash, RevokeError> {
    let now = store.now().await?;
    let sealed = Record::Revocation(revocation.clone()).seal(repository, writer, now, owner)?;
    create::put(store, &sealed).await?;
    Ok(sealed.hash())
}
