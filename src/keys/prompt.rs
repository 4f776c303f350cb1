//! Questions to the user: passphrases and the questions of age plugins.

use std::sync::Arc;

use age::secrecy::SecretString;
use zeroize::Zeroizing;

/// Asks the user: on the terminal in the command line, never in a pod.
pub trait Prompt: Send + Sync {
    /// Returns a passphrase for `what`, or none if there is no user to ask.
    fn passphrase(&self, what: &str) -> Option<Zeroizing<String>>;
    /// Returns the answer to a plugin's question that is not secret.
    fn input(&self, question: &str) -> Option<String>;
    /// Returns the answer to a plugin's yes-or-no question.
    fn confirm(&self, question: &str, yes: &str, no: Option<&str>) -> Option<bool>;
    /// Shows a message, such as "touch the key".
    fn message(&self, message: &str);
}

/// A prompt without a user: it answers nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoPrompt;

impl Prompt for NoPrompt {
    fn passphrase(&self, _: &str) -> Option<Zeroizing<String>> {
        None
    }
    fn input(&self, _: &str) -> Option<String> {
        None
    }
    fn confirm(&self, _: &str, _: &str, _: Option<&str>) -> Option<bool> {
        None
    }
    fn message(&self, _: &str) {}
}

/// Adapts a [`Prompt`] to age's callbacks.
#[derive(Clone)]
pub(crate) struct AgeCallbacks(Arc<dyn Prompt>);

impl AgeCallbacks {
    pub(crate) fn new(prompt: Arc<dyn Prompt>) -> Self {
        Self(prompt)
    }
}

impl age::Callbacks for AgeCallbacks {
    fn display_message(&self, message: &str) {
        self.0.message(message);
    }
    fn confirm(&self, message: &str, yes: &str, no: Option<&str>) -> Option<bool> {
        self.0.confirm(message, yes, no)
    }
    fn request_public_string(&self, description: &str) -> Option<String> {
        self.0.input(description)
    }
    fn request_passphrase(&self, description: &str) -> Option<SecretString> {
        self.0.passphrase(description).map(|text| SecretString::from(text.as_str().to_owned()))
    }
}
