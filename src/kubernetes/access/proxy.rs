//! The proxy to an API server: that of the kubeconfig, or that of the environment.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::AccessError;

/// Returns the proxy to `server`. A kubeconfig's own applies always, one of the environment not to this machine
/// and not to the hosts of `NO_PROXY`. `cluster` names the kubeconfig's entry in messages.
pub(super) fn proxy(server: &Uri, own: Option<&str>, cluster: &str) -> Result<Option<Uri>, AccessError> {
    if let Some(own) = own {
        let what = format!("{cluster}: the proxy-url");
        return parse(own).map(Some).map_err(|problem| AccessError::invalid(what, problem));
    }
    let names: [&'static str; 2] = if server.scheme_str() == Some("https") {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let given = names.into_iter().find_map(|name| Some((name, variable(name)?)));
    let Some((name, mut text)) = given.filter(|_| !is_this_machine(server)) else { return Ok(None) };
    if !text.contains("://") {
        text.insert_str(0, "http://");
    }
    let except = variable("NO_PROXY").or_else(|| variable("no_proxy")).unwrap_or_default();
    let matcher = Matcher::builder().all(text.as_str()).no(except).build();
    if matcher.intercept(server).is_none() {
        return Ok(None);
    }
    parse(&text).map(Some).map_err(|problem| AccessError::invalid(format!("the variable {name}"), problem))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn is_this_machine(server: &Uri) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Parses a proxy's address. A message does not repeat it: it may hold a password.
fn parse(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is not an address")?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "socks5"), Some(host)) if !host.is_empty() => Ok(uri),
        (Some("http" | "socks5"), _) => Err("names no host"),
        _ => Err("begins with neither http:// nor socks5://, the kinds of proxies that kbak can use"),
    }
}
