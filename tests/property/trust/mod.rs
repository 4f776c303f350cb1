//! Keys, signatures, epochs, owners, records and `init`.

mod epochs;
mod init;
mod owners;
mod records;
mod signing;
