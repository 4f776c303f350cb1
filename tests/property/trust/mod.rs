//! Keys, signatures, epochs, owners, records and `init`.

mod init;
mod life;
mod owners;
mod records;
mod signing;
