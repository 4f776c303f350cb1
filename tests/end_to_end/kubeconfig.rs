//! Kubeconfigs as people have them: those that kubectl takes are taken, and wrong ones are named.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kbak::kubernetes::{ApiError, Cluster, RequestLimits};
use kbak::plan::ClusterSpec;
use kbak::report::event::Reporter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::program::{command, read, set_mode};
use crate::support::tls::{CA, acceptor};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

/// Starts an HTTP server that answers every request with `{}`. Returns its port and the heads of the requests.
fn start_server() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, heads) = channel();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let (mut head, mut byte) = (Vec::new(), [0u8; 1]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(ANSWER);
            if sender.send(String::from_utf8_lossy(&head).into_owned()).is_err() {
                return;
            }
        }
    });
    (port, heads)
}

/// Returns the value of the Authorization header in the head of a request.
fn authorization(head: &str) -> Option<&str> {
    head.lines().find_map(|line| line.strip_prefix("authorization: "))
}

async fn connect(file: &Path, context: Option<&str>) -> Result<Cluster, ApiError> {
    let spec = ClusterSpec { kubeconfig_file: Some(file.to_owned()), context: context.map(str::to_owned) };
    let limits = RequestLimits { tries: 1, ..RequestLimits::default() };
    Cluster::connect(Some(&spec), limits, &Reporter::silent()).await
}

/// Returns a kubeconfig with one context; `cluster` and `user` are the fields of its entries.
fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
         clusters:\n- name: k\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
    )
}

fn utf16(text: &str) -> Vec<u8> {
    [0xFEFF].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubeconfigs_that_kubectl_takes_are_taken() {
    let (port, heads) = start_server();
    let folder = tempfile::tempdir().expect("a folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "from-file\r\n\n").expect("a token");
    let token = token.display();
    std::fs::write(folder.path().join("answer.json"), r#"{"status": {"token": "from-plugin\n"}}"#)
        .expect("a file");
    let plugin = format!("#!/bin/sh\ncat '{}/answer.json'\n", folder.path().display());
    std::fs::write(folder.path().join("plugin"), plugin).expect("a plugin");
    set_mode(&folder.path().join("plugin"), 0o755);
    let server = format!("server: \"http://127.0.0.1:{port}\"");
    let with = |user: &str| kubeconfig(&server, user);
    let bare = |server: &str| kubeconfig(&format!("server: \"{server}\""), "token: tok");
    let plain = with("token: tok");
    let cases: Vec<(&str, Vec<u8>, Option<&str>)> = vec![
        ("a token", plain.clone().into(), Some("Bearer tok")),
        ("a token with a line break", with("token: \"tok\\n\"").into(), Some("Bearer tok")),
        ("a token file with line breaks", with(&format!("tokenFile: {token}")).into(), Some("Bearer from-file")),
        ("a relative token file", with("tokenFile: token").into(), Some("Bearer from-file")),
        ("a token and its file", with("token: old, tokenFile: token").into(), Some("Bearer from-file")),
        ("a token and a missing file", with("token: tok, tokenFile: gone").into(), Some("Bearer tok")),
        (
            "empty fields",
            kubeconfig(
                &format!(
                    "{server}, certificate-authority: \"\", certificate-authority-data: \"\", proxy-url: \"\", \
                     tls-server-name: \"\""
                ),
                "token: \"\", tokenFile: token, client-certificate-data: \"\", client-key-data: \"\", username: \"\", \
                 password: \"\", as: \"\"",
            )
            .into(),
            Some("Bearer from-file"),
        ),
        (
            "null fields",
            kubeconfig(
                &format!("{server}, insecure-skip-tls-verify: null, extensions: null"),
                "token: tok, exec: null, auth-provider: null, as-groups: null, as-user-extra: null",
            )
            .into(),
            Some("Bearer tok"),
        ),
        ("a null user", with("").replace("user: {}", "user: null").into(), None),
        ("no such user", with("token: tok").replace("- name: u", "- name: other").into(), None),
        ("a byte order mark", format!("\u{feff}{plain}").into(), Some("Bearer tok")),
        ("line ends of Windows", plain.replace('\n', "\r\n").into(), Some("Bearer tok")),
        ("UTF-16, as PowerShell writes", utf16(&plain), Some("Bearer tok")),
        ("no scheme", bare(&format!("127.0.0.1:{port}")).into(), Some("Bearer tok")),
        ("a slash at the end", bare(&format!("http://127.0.0.1:{port}/")).into(), Some("Bearer tok")),
        ("a line break after the server", bare(&format!("http://127.0.0.1:{port}\\n")).into(), Some("Bearer tok")),
        ("a user without a password", with("username: me").into(), Some("Basic bWU6")),
        (
            "another context that is incomplete",
            plain.replace("clusters:\n", "- name: broken\n  context: {user: u}\n- name: empty\nclusters:\n").into(),
            Some("Bearer tok"),
        ),
        (
            "another user with a bad token",
            plain.replace("users:\n", "users:\n- name: bad\n  user: {token: \"a b\"}\n").into(),
            Some("Bearer tok"),
        ),
        ("several documents", plain.replace("users:\n", "---\nusers:\n").into(), Some("Bearer tok")),
        (
            "a credential plugin with a line break after its token",
            with("exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, interactiveMode: Never}").into(),
            Some("Bearer from-plugin"),
        ),
        (
            "a credential plugin with empty fields",
            with(
                "token: \"\", exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, args: [\"-c\", \"$PLUGIN\"], \
                 installHint: \"\", provideClusterInfo: null, interactiveMode: Never, env: [{name: PLUGIN, value: \
                 \"cat answer.json\"}, {name: EMPTY, value: \"\"}]}",
            )
            .replace("cat answer.json", &format!("cat {}/answer.json", folder.path().display()))
            .into(),
            Some("Bearer from-plugin"),
        ),
        ("an empty namespace", plain.replace("user: u}", "user: u, namespace: \"\"}").into(), Some("Bearer tok")),
    ];
    for (what, text, expected) in cases {
        let file = folder.path().join("config");
        std::fs::write(&file, text).expect("a kubeconfig");
        let cluster = connect(&file, None).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(cluster.namespace(), "default", "{what}");
        cluster.get("/version", "", 1 << 20).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let head = heads.recv().expect("a request");
        assert!(head.starts_with("GET /version HTTP/1.1"), "{what}: {head}");
        assert_eq!(authorization(&head), expected, "{what}");
    }
}

#[tokio::test]
async fn wrong_kubeconfig_is_refused_with_the_name_of_its_fault() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("blank"), "\n").expect("a file");
    let https = "server: \"https://127.0.0.1:1\"";
    let with = |cluster: &str, user: &str| kubeconfig(cluster, user);
    let good = with(https, "token: canary");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "no current-context"),
        ("no YAML", b"users: [canary\n".to_vec(), "cannot be parsed, at line"),
        ("a text", b"canary".to_vec(), "is not a kubeconfig"),
        ("a list that is none", b"users: canary".to_vec(), "users is not a list"),
        ("an entry that is none", b"users: [canary]".to_vec(), "users has an entry without fields"),
        ("no current context", good.replace("current-context: c", "").into(), "contexts: c"),
        (
            "an unknown context",
            good.replace("current-context: c", "current-context: d").into(),
            "\"d\" is not in",
        ),
        ("a context without a cluster", good.replace("cluster: k, ", "").into(), "names no cluster"),
        (
            "an unknown cluster",
            good.replace("cluster: k,", "cluster: x,").into(),
            "\"x\", which is not there",
        ),
        ("no server", with("", "token: canary").into(), "names no server"),
        ("another scheme", with("server: \"ftp://a\"", "").into(), "neither https:// nor http://"),
        ("a path without a scheme", with("server: \"a/b\"", "").into(), "neither an address nor a host"),
        ("a server with a blank", with("server: \"https://a b\"", "").into(), "not an address"),
        ("a token with a blank", with(https, "token: \"can ary\"").into(), "no token has"),
        ("a token with a control", with(https, "token: \"can\\u0001ary\"").into(), "no token has"),
        ("a missing token file", with(https, "tokenFile: gone").into(), "token file"),
        ("a blank token file", with(https, "tokenFile: blank").into(), "holds no token"),
        ("a number as a token", with(https, "token: 12345").into(), "wrong type"),
        (
            "certificates that are no base64",
            with(&format!("{https}, certificate-authority-data: \"ca-nary\""), "").into(),
            "not base64",
        ),
        (
            "certificates that are none",
            with(&format!("{https}, certificate-authority-data: \"Y2FuYXJ5\""), "").into(),
            "no certificate of an authority",
        ),
        ("a missing authority", with(&format!("{https}, certificate-authority: gone"), "").into(), "gone"),
        (
            "another proxy",
            with(&format!("{https}, proxy-url: \"https://canary@p\""), "").into(),
            "the proxy-url",
        ),
        ("a failing plugin", with(https, "exec: {command: \"false\"}").into(), "failed: exit status: 1"),
        ("no plugin", with(https, "exec: {command: ./canary}").into(), "the credential plugin cannot"),
        ("a plugin without a command", with(https, "exec: {}").into(), "has no command"),
        (
            "a plugin that says something else",
            with(https, "exec: {command: echo, args: [canary]}").into(),
            "cannot be understood",
        ),
        (
            "a plugin's token with a control",
            with(https, "exec: {command: echo, args: ['{\"status\": {\"token\": \"can\\u0001ary\"}}']}")
                .into(),
            "no token has",
        ),
        ("a provider of old", with(https, "auth-provider: {name: gcp}").into(), "credential plugin (exec)"),
        ("a half of UTF-16", utf16(&good)[..9].to_vec(), "not text in UTF-8"),
        ("other bytes", vec![0xC3, 0x28, 0x00], "not text in UTF-8"),
    ];
    for (what, text, expected) in cases {
        let file = folder.path().join("config");
        std::fs::write(&file, text).expect("a kubeconfig");
        let error = connect(&file, None).await.expect_err(what);
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(expected), "{what}: {error}");
        assert!(!shown.contains("canary") && !shown.contains("can ary"), "{what}: {error}");
        assert!(error.server.ends_with("config"), "{what}: the file is named: {error}");
    }
    let error = connect(&folder.path().join("gone"), None).await.expect_err("no file");
    assert!(error.to_string().contains("gone"), "{error}");
}

/// Answers one request over TLS.
async fn serve_tls(listener: tokio::net::TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let Ok(mut stream) = acceptor().accept(stream).await else { continue };
        let mut head = [0u8; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(ANSWER).await;
        let _ = stream.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authorities_are_read_from_wrapped_data_and_relative_files() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = tokio::spawn(serve_tls(listener));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("ca.pem"), CA).expect("a file");
    std::fs::write(folder.path().join("bom.pem"), [b"\xef\xbb\xbf", CA].concat()).expect("a file");
    let data = BASE64.encode(CA);
    let wrapped: Vec<&str> =
        data.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    let url = format!("server: \"https://127.0.0.1:{port}\"");
    for (what, fields) in [
        ("data", format!("{url}, certificate-authority-data: \"{data}\"")),
        ("wrapped data", format!("{url}, certificate-authority-data: \"{}\\n\"", wrapped.join("\\n"))),
        ("a relative file", format!("{url}, certificate-authority: ca.pem")),
        ("a file with a byte order mark", format!("{url}, certificate-authority: bom.pem")),
        (
            "data before a file",
            format!("{url}, certificate-authority: gone, certificate-authority-data: \"{data}\""),
        ),
        ("no scheme, an authority", format!("server: \"127.0.0.1:{port}\", certificate-authority: ca.pem")),
        (
            "another name of the server",
            format!(
                "server: \"https://localhost:{port}\", certificate-authority: ca.pem, tls-server-name: 127.0.0.1"
            ),
        ),
    ] {
        let file = folder.path().join("config");
        std::fs::write(&file, kubeconfig(&fields, "token: tok")).expect("a kubeconfig");
        let cluster = connect(&file, None).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let answer = cluster.get("/version", "", 1 << 20).await;
        answer.unwrap_or_else(|error| panic!("{what}: {error} {:?}", error.source));
    }
    server.abort();
}

/// Runs a verb that asks the API server, with these variables, and returns the first request.
fn first_request(heads: &Receiver<String>, variables: &[(&str, String)]) -> String {
    let mut run = command(&["plan", "init", "--repo", "file:///nowhere"]);
    for (name, value) in variables {
        run.env(name, value);
    }
    let (code, _, err) = read(run.output().expect("it runs"));
    assert_ne!(code, 1, "{err}");
    let first = heads.try_recv().unwrap_or_else(|_| panic!("no request: {variables:?}: {err}"));
    while heads.try_recv().is_ok() {}
    first
}

#[test]
fn kubeconfig_variable_lists_files_of_which_the_first_wins() {
    let (port, heads) = start_server();
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let server = format!("server: \"http://127.0.0.1:{port}\"");
    let first = kubeconfig(&server, "token: one").replace("current-context: c", "current-context: \"\"");
    std::fs::write(at("one"), first).expect("a file");
    std::fs::write(at("two"), kubeconfig("server: \"http://127.0.0.1:1\"", "token: two")).expect("a file");
    let home = folder.path().join("home");
    std::fs::create_dir_all(home.join(".kube")).expect("a folder");
    std::fs::write(home.join(".kube/config"), kubeconfig(&server, "token: home")).expect("a file");
    let home = home.display().to_string();
    let list = format!("{}:{}::{}", at("gone").display(), at("one").display(), at("two").display());
    for (what, variables, expected) in [
        ("a list with a missing file", vec![("KUBECONFIG", list.clone())], "Bearer one"),
        ("a line break at its end", vec![("KUBECONFIG", format!("{list}\n"))], "Bearer one"),
        ("an empty variable", vec![("KUBECONFIG", String::new()), ("HOME", home.clone())], "Bearer home"),
        (
            "empty variables of a pod",
            vec![("KUBERNETES_SERVICE_HOST", String::new()), ("HOME", home.clone())],
            "Bearer home",
        ),
        (
            "a proxy, and a server on this machine",
            vec![("KUBECONFIG", list.clone()), ("HTTP_PROXY", "http://127.0.0.1:1".into())],
            "Bearer one",
        ),
        (
            "an empty proxy",
            vec![("KUBECONFIG", list), ("HTTPS_PROXY", String::new()), ("https_proxy", "\n".into())],
            "Bearer one",
        ),
    ] {
        assert_eq!(authorization(&first_request(&heads, &variables)), Some(expected), "{what}");
    }
}
