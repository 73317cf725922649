//! The gate for secrets: what is not copied into a guest, by its name and the beginning of its content.
//!
//! It keeps out what is a credential by its form. It cannot know a password in a source file, and does not try.

use crate::names;

/// How much of a file's beginning [`secret`] wants to see.
pub const HEAD: usize = 8192;

/// Why a file is taken for a secret; `head` is its beginning ([`HEAD`] bytes or all).
#[must_use]
pub fn secret(path: &[u8], head: &[u8]) -> Option<String> {
    let path = path.to_ascii_lowercase();
    let (directory, name) = names::split(&path);
    let parent = names::split(directory).1;
    by_name(parent, name).or_else(|| by_content(parent, name, head)).map(str::to_owned)
}

fn by_name(parent: &[u8], name: &[u8]) -> Option<&'static str> {
    let key_pair =
        [b"id_rsa".as_slice(), b"id_dsa", b"id_ecdsa", b"id_ed25519", b"id_ecdsa_sk", b"id_ed25519_sk", b"identity"];
    match name {
        _ if is_environment(name) => Some("a file of environment variables"),
        _ if name != b"identity" && key_pair.contains(&name) => Some("a private SSH key"),
        _ if parent == b".ssh" && !name.ends_with(b".pub") && key_pair.contains(&name) => Some("a private SSH key"),
        b".netrc" | b"_netrc" => Some("passwords for hosts (netrc)"),
        b".pypirc" => Some("passwords for package indexes"),
        b".git-credentials" => Some("passwords stored by git"),
        b".pgpass" | b"pgpass.conf" => Some("passwords of databases"),
        b".htpasswd" => Some("password hashes"),
        b".vault-token" => Some("a token of Vault"),
        b"application_default_credentials.json" => Some("credentials of Google Cloud"),
        b"kubeconfig" => Some("credentials of a cluster"),
        b"config" if parent == b".kube" => Some("credentials of a cluster"),
        b"credentials" if parent == b".aws" => Some("credentials of AWS"),
        b"credentials" | b"credentials.toml" if parent == b".cargo" => Some("tokens of a package registry"),
        b"credentials" if parent == b".gem" => Some("tokens of a package registry"),
        b"hosts.yml" if parent == b"gh" => Some("a token of GitHub"),
        b"secrets.toml" if parent == b".streamlit" => Some("secrets of an application"),
        _ => match extension(name) {
            b"key" => Some("a private key"),
            b"p12" | b"pfx" | b"jks" | b"keystore" | b"kdbx" | b"ppk" => Some("a store of private keys"),
            b"kubeconfig" => Some("credentials of a cluster"),
            _ => None,
        },
    }
}

/// `.env`, `.env.production`, `prod.env`; not those that are there to be copied and filled in.
fn is_environment(name: &[u8]) -> bool {
    let samples = [b"example".as_slice(), b"sample", b"template", b"dist", b"defaults"];
    if name == b".env" {
        return true;
    }
    if let Some(kind) = name.strip_prefix(b".env.") {
        return !kind.split(|&byte| byte == b'.').any(|part| samples.contains(&part));
    }
    name.strip_suffix(b".env").is_some_and(|stem| !stem.split(|&byte| byte == b'.').any(|part| samples.contains(&part)))
}

fn by_content(parent: &[u8], name: &[u8], head: &[u8]) -> Option<&'static str> {
    let has = |text: &[u8]| head.windows(text.len()).any(|window| window == text);
    match name {
        b".npmrc" if has(b"_authToken") || has(b"_auth") || has(b"_password") => Some("a token of a package registry"),
        b".yarnrc.yml" if has(b"npmAuthToken") || has(b"npmAuthIdent") => Some("a token of a package registry"),
        b"config.json" if parent == b".docker" && has(b"\"auth\"") => Some("passwords of image registries"),
        b".dockercfg" | b".dockerconfigjson" if has(b"auth") => Some("passwords of image registries"),
        b".my.cnf" if has(b"password") => Some("passwords of databases"),
        b".envrc" if [b"KEY".as_slice(), b"TOKEN", b"SECRET", b"PASSWORD"].into_iter().any(has) => {
            Some("a file of environment variables")
        }
        b"pip.conf" | b".condarc" if has(b"://") && has(b"@") => Some("passwords for package indexes"),
        _ if extension(name) == b"json" && has(b"\"service_account\"") && has(b"\"private_key\"") => {
            Some("the key of a Google service account")
        }
        _ if extension(name) == b"json" && has(b"\"client_secret\"") && (has(b"\"installed\"") || has(b"\"web\"")) => {
            Some("the secret of an OAuth client")
        }
        _ if extension(name) == b"pem" && has_private_key(head) => Some("a private key"),
        _ if is_private_key(head) => Some("a private key"),
        _ if head.starts_with(b"PuTTY-User-Key-File-") => Some("a private SSH key"),
        _ if head.starts_with(b"apiVersion:") && has(b"kind: Config") && has(b"current-context:") => {
            Some("credentials of a cluster")
        }
        _ => None,
    }
}

/// Whether the file as a whole is a key: a test that carries one in a string is not.
fn is_private_key(head: &[u8]) -> bool {
    let text = head.trim_ascii_start();
    (text.starts_with(b"-----BEGIN ") || text.starts_with(b"Bag Attributes")) && has_private_key(text)
}

fn has_private_key(head: &[u8]) -> bool {
    head.split(|&byte| byte == b'\n').any(|line| {
        let line = line.trim_ascii();
        line.starts_with(b"-----BEGIN ")
            && (line.ends_with(b"PRIVATE KEY-----") || line.ends_with(b"PRIVATE KEY BLOCK-----"))
    })
}

fn extension(name: &[u8]) -> &[u8] {
    name.iter().rposition(|&byte| byte == b'.').map_or(b"", |dot| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n";

    #[test]
    fn secrets_are_kept_out() {
        let kept_out: [(&str, &[u8]); 31] = [
            (".env", b""),
            ("sub/.env", b""),
            (".env.production", b""),
            (".ENV", b""),
            ("prod.env", b""),
            ("deploy/id_rsa", b""),
            ("id_ed25519", b""),
            ("server.pem", b"-----BEGIN CERTIFICATE-----\nx\n-----BEGIN PRIVATE KEY-----\n"),
            ("tls/server.key", b""),
            ("cert.p12", b""),
            ("cert.PFX", b""),
            ("some-file", KEY),
            ("spaced", b"\n\n-----BEGIN RSA PRIVATE KEY-----\r\n"),
            ("gpg.asc", b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n"),
            (".netrc", b""),
            (".npmrc", b"//registry.example/:_authToken=x"),
            (".pypirc", b""),
            (".aws/credentials", b""),
            ("home/.docker/config.json", b"{\"auths\":{\"r\":{\"auth\":\"x\"}}}"),
            ("sa.json", b"{\"type\": \"service_account\", \"private_key\": \"x\"}"),
            (".git-credentials", b""),
            (".kube/config", b""),
            ("kubeconfig", b""),
            ("prod.kubeconfig", b""),
            ("k8s.yaml", b"apiVersion: v1\nkind: Config\ncurrent-context: x\n"),
            (".cargo/credentials.toml", b""),
            (".envrc", b"export API_TOKEN=x"),
            ("client.json", b"{\"installed\":{\"client_secret\":\"x\"}}"),
            ("a.jks", b""),
            ("putty", b"PuTTY-User-Key-File-3: ssh-rsa"),
            (".pgpass", b""),
        ];
        for (path, head) in kept_out {
            assert!(secret(path.as_bytes(), head).is_some(), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_one_comes_in() {
        let in_all_the_same: [(&str, &[u8]); 16] = [
            (".env.example", b"KEY="),
            (".env.sample", b""),
            (".env.template", b""),
            (".env.local.example", b""),
            ("example.env", b""),
            ("env", b""),
            ("environment.ts", b""),
            ("id_rsa.pub", b"ssh-rsa AAAA"),
            ("ca.pem", b"-----BEGIN CERTIFICATE-----\n"),
            (".npmrc", b"registry=https://registry.example/\n"),
            ("tests/keys.rs", b"const KEY: &str = \"\n-----BEGIN PRIVATE KEY-----\";"),
            ("config.json", b"{\"auth\": true}"),
            ("package.json", b"{\"private_key\": 1}"),
            (".envrc", b"use flake\n"),
            ("src/config", b""),
            ("keys/identity", b""),
        ];
        for (path, head) in in_all_the_same {
            assert!(secret(path.as_bytes(), head).is_none(), "{path}");
        }
    }
}
