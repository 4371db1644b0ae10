//! A worker as the API takes it: metadata, modules, and the values of its secrets.
//!
//! What identifies a version is the hash of everything but the secrets' values. For each secret its revision counts
//! instead: a value could be guessed from a hash of it.

use std::collections::BTreeMap;

use edge::Form;
use model::edge::{LimitScope, Proof};
use serde_json::{Value, json};

use config::cloudflare::Cloudflare;

use super::marks::Marks;

/// The module that is run first.
pub const MAIN: &str = "worker.js";
/// The module with the policy, which the first one imports.
pub const POLICY: &str = "policy.js";
/// The secret that lets operators in: the probe of a new version asks with it.
pub const OPERATOR: &str = "OPERATOR_TOKEN";
/// The media type of an ES module. The API takes none for JSON, so the policy is a module with one export.
const ES_MODULE: &str = "application/javascript+module";
/// The durable object classes of the worker, by the migration that made them. A migration is for ever: a new class is a
/// new line.
pub const MIGRATIONS: &[(&str, &[&str])] = &[("v1", &["Bucket", "Shared"])];

/// One module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, as others import it without `./`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A worker, without the values of its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// The metadata, without secrets, annotations and migrations.
    pub metadata: Value,
    /// The modules.
    pub modules: Vec<Module>,
    /// The names of its secrets, and the revision of each.
    pub secrets: BTreeMap<String, u32>,
    /// What it is known by: `rm-` and 16 hexadecimal digits. Cloudflare takes 25 bytes.
    pub tag: String,
}

/// What an upload is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A version that serves nobody yet.
    Version {
        /// The words shown beside it, at most 100 bytes.
        message: String,
    },
    /// The whole script at once, because it brings durable object classes; versions cannot.
    Migration {
        /// The migration that was released last; none where there is no script yet.
        from: Option<String>,
        /// The mark of its deployment.
        script_tag: String,
    },
}

/// What the worker of this form is, with `code` as its first module.
pub fn upload(form: &Form, settings: &Cloudflare, marks: &Marks, code: &str) -> Upload {
    let policy = format!("export default {};\n", serde_json::to_string(form).expect("a form is plain data"));
    let modules =
        vec![Module { name: MAIN.to_owned(), text: code.to_owned() }, Module { name: POLICY.to_owned(), text: policy }];
    let metadata = json!({
        "main_module": MAIN,
        "compatibility_date": settings.compatibility_date,
        "bindings": bindings(form, settings, marks),
    });
    let secrets = settings.secrets.iter().map(|(name, source)| (name.clone(), source.revision)).collect();
    let mut upload = Upload { metadata, modules, secrets, tag: String::new() };
    upload.tag = upload.fingerprint();
    upload
}

/// The names of the secrets that this form's worker asks for.
pub fn secrets_wanted(form: &Form) -> Vec<String> {
    let of = |proof: &Proof| match proof {
        Proof::SignedUrl { secret, .. } => Some(format!("SECRET_{secret}")),
        Proof::Token { .. } => None,
    };
    [OPERATOR.to_owned()].into_iter().chain(form.auth.iter().filter_map(|auth| of(&auth.proof))).collect()
}

fn bindings(form: &Form, settings: &Cloudflare, marks: &Marks) -> Vec<Value> {
    let object =
        |name: &str, class: &str| json!({"type": "durable_object_namespace", "name": name, "class_name": class});
    let mut all = vec![
        object("BUCKETS", "Bucket"),
        object("SHARED", "Shared"),
        json!({"type": "version_metadata", "name": "VERSION"}),
    ];
    for limit in form.limits.iter().filter(|limit| limit.scope == LimitScope::Coarse) {
        all.push(json!({
            "type": "ratelimit",
            "name": limit_binding(limit.name.as_str()),
            "namespace_id": limit_namespace(marks, limit.name.as_str()),
            "simple": {"limit": limit.rate, "period": limit.per_seconds},
        }));
    }
    for name in &settings.kv {
        all.push(json!({"type": "kv_namespace", "name": name, "namespace_id": format!("ref:kv/{name}")}));
    }
    all
}

/// The binding of a coarse limit, as the worker looks for it.
fn limit_binding(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("LIMIT_{}", name.chars().map(plain).collect::<String>())
}

/// A whole number above 0 that no other limit of the account has: what counts requests together.
fn limit_namespace(marks: &Marks, name: &str) -> String {
    let hash = blake3::derive_key("repomind cloudflare limit v1", format!("{}/{name}", marks.id()).as_bytes());
    let number = u32::from_be_bytes(hash[..4].try_into().expect("four bytes")) & 0x7fff_ffff;
    number.max(1).to_string()
}

impl Upload {
    fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new_derive_key("repomind cloudflare version v1");
        let mut part = |text: &str| {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        part(&self.metadata.to_string());
        for module in &self.modules {
            part(&module.name);
            part(&module.text);
        }
        for (name, revision) in &self.secrets {
            part(&format!("{name}={revision}"));
        }
        let hash = hash.finalize();
        format!("rm-{}", hash.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// The metadata as it is sent; `values` has every secret.
    ///
    /// # Panics
    /// Where a secret is missing: callers read all of them first.
    pub fn metadata(&self, purpose: &Purpose, metadata: Value, values: &BTreeMap<String, String>) -> Value {
        let mut metadata = metadata;
        let secret = |name: &String| json!({"type": "secret_text", "name": name, "text": values[name]});
        let secrets: Vec<Value> = self.secrets.keys().map(secret).collect();
        metadata["bindings"].as_array_mut().expect("bindings are a list").extend(secrets);
        match purpose {
            Purpose::Version { message } => {
                let message: String = message.chars().take(100).collect();
                metadata["annotations"] = json!({"workers/message": message, "workers/tag": self.tag});
            }
            Purpose::Migration { from, script_tag } => {
                metadata["migrations"] = migrations(from.as_deref());
                metadata["tags"] = json!(["repomind", script_tag]);
            }
        }
        metadata
    }

    /// The body of an upload, `multipart/form-data` (RFC 7578), and its media type.
    pub fn multipart(&self, metadata: &Value) -> (String, Vec<u8>) {
        // A boundary must not stand in what it bounds; a hash of it does not.
        let boundary = format!("repomind-{}", self.tag);
        let mut body = Vec::new();
        let mut part = |disposition: &str, media_type: &str, text: &str| {
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {media_type}\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(text.as_bytes());
            body.extend_from_slice(b"\r\n");
        };
        part("name=\"metadata\"", "application/json", &metadata.to_string());
        for module in &self.modules {
            part(&format!("name=\"{0}\"; filename=\"{0}\"", module.name), ES_MODULE, &module.text);
        }
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        (format!("multipart/form-data; boundary={boundary}"), body)
    }
}

/// The migrations after `from`, as one step each.
fn migrations(from: Option<&str>) -> Value {
    let at = from.and_then(|from| MIGRATIONS.iter().position(|(tag, _)| *tag == from)).map_or(0, |at| at + 1);
    let steps: Vec<Value> =
        MIGRATIONS[at..].iter().map(|(_, classes)| json!({"new_sqlite_classes": classes})).collect();
    let last = MIGRATIONS[MIGRATIONS.len() - 1].0;
    match from {
        Some(from) => json!({"old_tag": from, "new_tag": last, "steps": steps}),
        None => json!({"new_tag": last, "steps": steps}),
    }
}
