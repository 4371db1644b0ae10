//! By what our things are known among all that an account holds.

use config::cloudflare::Cloudflare;

/// The marks of one deployment. They follow from account, zone and worker, so that a machine that has lost its journal
/// knows its own things again, and two deployments in one account never take each other's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    id: String,
}

impl Marks {
    /// Of the deployment that these settings describe.
    pub fn of(settings: &Cloudflare) -> Self {
        let text = format!("{}/{}/{}", settings.account, settings.zone, settings.worker);
        let hash = blake3::derive_key("repomind cloudflare deployment v1", text.as_bytes());
        Self { id: hash[..4].iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// The deployment's identifier: 8 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The tag of the worker's script.
    pub fn script_tag(&self) -> String {
        format!("repomind-{}", self.id)
    }

    /// The name of a pool or the title of a namespace: letters, digits, hyphens and underscores.
    pub fn name(&self, key: &str) -> String {
        format!("repomind-{}-{key}", self.id)
    }

    /// What `name` was made of, if this deployment made it.
    pub fn key<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix("repomind-")?.strip_prefix(self.id.as_str())?.strip_prefix('-')
    }

    /// How the description of a monitor or load balancer begins.
    pub fn description(&self, what: &str) -> String {
        format!("repomind {}: {what}", self.id)
    }

    /// Whether a description is one of ours.
    pub fn describes(&self, description: &str) -> bool {
        description
            .strip_prefix("repomind ")
            .and_then(|rest| rest.strip_prefix(self.id.as_str()))
            .is_some_and(|rest| rest.starts_with(':'))
    }

    /// The reference of a rule in a ruleset.
    pub fn rule_reference(&self, key: &str) -> String {
        format!("repomind_{}_{}", self.id, key.replace('-', "_"))
    }

    /// What a rule's reference was made of, if this deployment made it.
    pub fn rule_key(&self, reference: &str) -> Option<String> {
        let rest = reference.strip_prefix("repomind_")?.strip_prefix(self.id.as_str())?.strip_prefix('_')?;
        Some(rest.replace('_', "-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_deployment_s_things_are_not_ours() {
        let (ours, theirs) = (Marks { id: "0123abcd".into() }, Marks { id: "0123abce".into() });
        assert_eq!(ours.key(&ours.name("us-east")), Some("us-east"));
        assert_eq!(ours.key(&theirs.name("us-east")), None);
        assert_eq!(ours.rule_key(&ours.rule_reference("no-second-cache")).as_deref(), Some("no-second-cache"));
        assert_eq!(ours.rule_key(&theirs.rule_reference("x")), None);
        assert!(ours.describes(&ours.description("gateways")) && !ours.describes(&theirs.description("gateways")));
    }
}
