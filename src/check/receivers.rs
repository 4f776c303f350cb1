//! Checks the receivers of notices: their addresses, and nothing more. A request would count as a notice.

use super::Finding;
use crate::notify::{AddressError, read_address};
use crate::plan::Notify;
use crate::report::error::causes;

pub(super) fn check(receivers: &[Notify]) -> Vec<Finding> {
    let finding = |(number, receiver): (usize, &Notify)| {
        let about = format!("notify[{number}]");
        match read_address(receiver) {
            Ok(_) => {
                Finding::good(&about, format!("the {} has an address; it was not asked", receiver.kind()))
            }
            Err(error) => {
                let remedy = match &error {
                    AddressError::Unread { .. } => {
                        "write the address into this file, or correct urlFile in the plan"
                    }
                    AddressError::Malformed { .. } => "write the address alone: https://host/path",
                };
                Finding::problem(&about, causes(&error)).remedy(remedy)
            }
        }
    };
    receivers.iter().enumerate().map(finding).collect()
}
