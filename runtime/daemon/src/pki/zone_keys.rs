//! `repomind-run pki dns-key`: the keys that sign DNS zones, and how one follows the other.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use model::names::DnsName;
use routing::dns::ZoneKey;

use super::KeyDir;

const HOUR: u64 = 3600;

/// The steps.
#[derive(Clone, Debug, Subcommand)]
pub enum DnsKey {
    /// Make the first key of a zone: from then on the zone is signed.
    Create {
        /// The zone's apex, such as repomind.io.
        zone: DnsName,
        /// Hours until the parent may name the key: longer than any answer of the zone is kept.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=720))]
        wait_hours: u64,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
    },
    /// Make the next key of a zone; both sign until the last one is retired.
    Roll {
        /// The zone's apex.
        zone: DnsName,
        /// Hours until the parent may name the new key instead of the last: longer than records of the zone are kept.
        #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u64).range(0..=720))]
        wait_hours: u64,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
    },
    /// End a key that the parent does not name any more.
    Retire {
        /// The zone's apex.
        zone: DnsName,
        /// The key's tag, as `show` prints it.
        tag: u16,
        /// Hours until it ends: longer than the parent's DS records are kept.
        #[arg(long, default_value_t = 48, value_parser = clap::value_parser!(u64).range(0..=720))]
        wait_hours: u64,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
    },
    /// Show the keys, what each does now, and the DS records for the parent.
    Show {
        /// Only this zone's.
        zone: Option<DnsName>,
        /// Where the keys are.
        #[command(flatten)]
        keys: KeyDir,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs one step.
pub fn run(step: DnsKey) -> anyhow::Result<ExitCode> {
    use net::pki::dns;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    match step {
        DnsKey::Create { zone, wait_hours, keys } => {
            let key = dns::create(&keys.dir, &zone, now, wait_hours * HOUR)?;
            println!("made key {} of {zone} in {}", key.tag(), keys.dir.display());
            println!("1. put its two files into STATE/pki of every region; each signs within seconds");
            println!("2. in {wait_hours} h or later, give this record to the operator of the parent zone:");
            println!("   {}", key.ds_text());
        }
        DnsKey::Roll { zone, wait_hours, keys } => {
            let key = dns::roll(&keys.dir, &zone, now, wait_hours * HOUR)?;
            println!("made key {} of {zone} in {}; it signs beside the last one", key.tag(), keys.dir.display());
            println!("1. put all files of the zone (K{zone}.*) into STATE/pki of every region");
            println!("2. in {wait_hours} h or later, have the parent name this one instead of the last:");
            println!("   {}", key.ds_text());
            println!("3. once it does, end the last one with `repomind-run pki dns-key retire {zone} TAG`");
        }
        DnsKey::Retire { zone, tag, wait_hours, keys } => {
            dns::retire(&keys.dir, &zone, tag, now, wait_hours * HOUR)?;
            println!(
                "key {tag} of {zone} ends in {wait_hours} h, where regions have its files (K{zone}.*) as they are now"
            );
        }
        DnsKey::Show { zone, keys, json } => show(&keys, zone.as_ref(), json, now)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(dir: &KeyDir, zone: Option<&DnsName>, json: bool, now: u64) -> anyhow::Result<()> {
    let keys = net::pki::dns::load(&dir.dir)?;
    let shown: Vec<&ZoneKey> = keys.iter().filter(|key| zone.is_none_or(|zone| *zone == key.zone)).collect();
    if json {
        let row = |key: &&ZoneKey| {
            serde_json::json!({
                "zone": key.zone, "tag": key.tag(), "state": state(key, now), "ds": key.ds_text(),
                "parent_names_it": key.times.synced(now), "ends": key.times.delete.or(key.times.inactive),
            })
        };
        println!("{}", serde_json::to_string_pretty(&shown.iter().map(row).collect::<Vec<_>>())?);
        return Ok(());
    }
    if shown.is_empty() {
        println!("no zone has a key in {}; make one with `repomind-run pki dns-key create ZONE`", dir.dir.display());
    }
    for key in shown {
        let parent = match key.times.sync_publish.checked_sub(now) {
            _ if key.times.synced(now) => "the parent should name it".to_owned(),
            Some(left) if left > 0 => format!("the parent may name it in {} h", left.div_ceil(HOUR)),
            _ => "the parent should not name it".to_owned(),
        };
        println!("{} key {}: {}; {parent}\n  {}", key.zone, key.tag(), state(key, now), key.ds_text());
    }
    Ok(())
}

fn state(key: &ZoneKey, now: u64) -> &'static str {
    let over = |time: Option<u64>| time.is_some_and(|time| time <= now);
    match () {
        () if over(key.times.delete) || over(key.times.inactive) => "gone",
        () if !key.times.signs(now) => "waits",
        () if key.times.inactive.is_some() => "signs, and ends soon",
        () => "signs",
    }
}
