//! Finds the name of the policy or webhook that denies an object. The rest of the message may quote any value
//! of the object and is never shown.

/// Describes the policy or webhook that denies, if the server's message is a denial.
pub(crate) fn denied_by(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("admission webhook \"") {
        let (name, rest) = rest.split_once('"')?;
        return (is_name(name) && rest.starts_with(" denied the request"))
            .then(|| format!("admission webhook {name} denies it"));
    }
    // The object comes first: `configmaps "a" is forbidden: `.
    let policies = ["ValidatingAdmissionPolicy '", "MutatingAdmissionPolicy '"];
    let at = policies.iter().filter_map(|policy| message.find(policy)).min()?;
    let (before, rest) = message.split_at(at);
    if !before.is_empty() && !before.ends_with(": ") {
        return None;
    }
    Some(format!("{} denies it", policy_name(rest)?))
}

/// Parses `ValidatingAdmissionPolicy 'x' with binding 'y'` at the start of a text, and removes the quotes.
pub(crate) fn policy_name(text: &str) -> Option<String> {
    let (kind, rest) = text.split_once(" '")?;
    if !matches!(kind, "ValidatingAdmissionPolicy" | "MutatingAdmissionPolicy") {
        return None;
    }
    let (policy, rest) = rest.split_once("' with binding '")?;
    let (binding, _) = rest.split_once('\'')?;
    (is_name(policy) && is_name(binding)).then(|| format!("{kind} {policy} with binding {binding}"))
}

/// True if the text is a possible name of a policy or webhook.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
    !name.is_empty() && name.len() <= 253 && name.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::denied_by;

    #[test]
    fn denials_are_reduced_to_names() {
        for (message, wanted) in [
            (
                "secrets \"db\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: hunter2",
                Some("ValidatingAdmissionPolicy p with binding b denies it"),
            ),
            (
                "admission webhook \"w.example.com\" denied the request: hunter2",
                Some("admission webhook w.example.com denies it"),
            ),
            ("admission webhook \"hunter2 IS SECRET\" denied the request", None),
            (
                "ConfigMap \"a\" is invalid: data: Invalid value: \"ValidatingAdmissionPolicy 'x' with binding 'y'\"",
                None,
            ),
            ("exceeded quota", None),
        ] {
            assert_eq!(denied_by(message).as_deref(), wanted, "{message}");
        }
    }
}
