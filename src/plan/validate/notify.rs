//! Checks of the receivers of notices. No message repeats an address.

use super::{Problems, address};
use crate::plan::notice_template::{NoticeTemplate, NoticeTemplateError};
use crate::plan::notify::Notify;

/// The most receivers of a plan. All are asked at once.
const MAX_RECEIVERS: usize = 16;
/// The longest label of a cluster, in characters.
const MAX_CLUSTER: usize = 128;

impl Problems {
    pub(super) fn check_receivers(&mut self, receivers: &[Notify]) {
        if receivers.len() > MAX_RECEIVERS {
            self.bad_value("spec.notify", format!("there are more than {MAX_RECEIVERS} receivers"));
        }
        for (number, receiver) in receivers.iter().enumerate() {
            let field = format!("spec.notify[{number}].{}", receiver.kind());
            match (receiver.url(), receiver.url_file()) {
                (Some(_), Some(_)) => {
                    self.contradiction(format!("{field}.urlFile"), "url and urlFile exclude each other");
                }
                (None, None) => {
                    self.bad_value(&field, "the receiver has no address").set_remedy(
                        "write urlFile: FILE for an address that is a secret, else url: https://…",
                    );
                }
                (Some(url), None) => self.check_url(&field, receiver, url),
                (None, Some(_)) => {}
            }
            if let Notify::Metrics(metrics) = receiver
                && let Some(cluster) = metrics.cluster.as_deref().filter(|label| !is_cluster_label(label))
            {
                let message = format!("{cluster:?} is not a label of a cluster");
                self.bad_value(format!("{field}.cluster"), message)
                    .set_remedy("use letters, digits, -, _ and ., as in prod-eu");
            }
            if let Notify::Webhook(webhook) = receiver
                && let Some(template) = &webhook.template
                && let Err(error) = NoticeTemplate::parse(template)
            {
                let remedy = template_remedy(&error);
                self.bad_value(format!("{field}.template"), error.to_string()).set_remedy(&remedy);
            }
        }
    }

    fn check_url(&mut self, field: &str, receiver: &Notify, url: &str) {
        match address::check_receiver_address(url) {
            Err(reason) => {
                self.bad_value(format!("{field}.url"), format!("the address cannot be used: {reason}"))
                    .set_remedy("write https://host/path");
            }
            Ok(uri) if matches!(receiver, Notify::Metrics(_)) && uri.query().is_some() => {
                self.bad_value(format!("{field}.url"), "a Pushgateway's address has no part after ?");
            }
            Ok(_) => {}
        }
    }
}

/// True if a text can be a part of a Pushgateway's path and a label's value.
fn is_cluster_label(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_CLUSTER
        && is_end(text.chars().next())
        && is_end(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

fn template_remedy(error: &NoticeTemplateError) -> String {
    match error {
        NoticeTemplateError::Unclosed => "close it, as in {{summary}}".to_owned(),
        NoticeTemplateError::UnknownField { similar: Some(near), .. } => format!("did you mean {near}?"),
        NoticeTemplateError::UnknownField { .. } => {
            "docs/plan.md lists the fields: {{summary}}, {{exit}}, …".to_owned()
        }
        NoticeTemplateError::NotJson { .. } => {
            "write JSON, with text in quotes: {\"text\": \"{{summary}}\", \"code\": {{exit}}}".to_owned()
        }
    }
}
