//! `repomind-run explain conflict NAMESPACE/KEY`: what lost against concurrent writes, to what and why, in all regions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use model::RegionId;
use model::record::Address;
use serde_json::{Value, json};

use crate::args::{ExplainConflictArgs, USAGE};
use crate::client::Client;

/// `repomind-run explain conflict`.
pub async fn run(args: ExplainConflictArgs) -> anyhow::Result<ExitCode> {
    let ExplainConflictArgs { place, record, region, values, json } = args;
    let deployment = crate::status::at(&place)?;
    let mut asked = deployment.admins();
    if let Some(region) = &region {
        asked.retain(|id, _| id == region);
        if asked.is_empty() {
            eprintln!("error: no region is called {region}");
            return Ok(ExitCode::from(USAGE));
        }
    }
    let client = Client::new(&place.state)?;
    let path = format!(
        "/conflicts?namespace={}&key={}&values={}",
        escaped(record.namespace.as_str()),
        escaped(record.key.as_str()),
        if values { "yes" } else { "no" }
    );
    let mut answers = BTreeMap::<RegionId, Result<Value, String>>::new();
    for (id, admin) in &asked {
        let answer = client.get_admin::<Value>(*admin, &path).await;
        answers.insert(id.clone(), answer.map_err(|error| format!("{error:#}")));
    }
    if answers.values().all(Result::is_err) {
        let first = answers.into_values().find_map(Result::err).unwrap_or_default();
        anyhow::bail!("no region could be asked: {first}");
    }
    let report = report(&record, &answers);
    match json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => print!("{}", told(&report)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A text in a query string.
fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().fold(String::new(), |mut all, byte| {
        let _ = if plain(&byte) { write!(all, "{}", char::from(byte)) } else { write!(all, "%{byte:02X}") };
        all
    })
}

/// What all regions say: equal entries once, with the regions that have them.
fn report(record: &Address, answers: &BTreeMap<RegionId, Result<Value, String>>) -> Value {
    /// What says something about a region alone, and not about the conflict.
    const OWN: [&str; 5] = ["number", "at", "generation", "policy", "kept"];
    let mut conflicts = Vec::<(Value, Vec<Value>)>::new();
    let mut regions = serde_json::Map::new();
    for (region, answer) in answers {
        let answer = match answer {
            Ok(answer) => answer,
            Err(reason) => {
                regions.insert(region.to_string(), json!({ "unreached": reason }));
                continue;
            }
        };
        regions.insert(region.to_string(), json!({ "now": answer["now"], "damaged": answer["damaged"] }));
        for entry in answer["conflicts"].as_array().into_iter().flatten() {
            let mut common = entry.as_object().cloned().unwrap_or_default();
            let mut own = serde_json::Map::from_iter([("region".to_owned(), json!(region))]);
            for name in OWN.into_iter().chain(["value", "not_shown"]) {
                own.extend(common.remove(name).map(|value| (name.to_owned(), value)));
            }
            let common = Value::Object(common);
            match conflicts.iter_mut().find(|(known, _)| *known == common) {
                Some((_, noted)) => noted.push(own.into()),
                None => conflicts.push((common, vec![own.into()])),
            }
        }
    }
    let entry = |(common, noted): (Value, Vec<Value>)| {
        let mut entry = common;
        entry["noted"] = noted.into();
        entry
    };
    json!({
        "namespace": record.namespace.as_str(),
        "key": record.key.as_str(),
        "regions": regions,
        "conflicts": conflicts.into_iter().map(entry).collect::<Vec<_>>(),
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// A write as `eu-west.0.1770000000.7 (1770000000123.0)`.
fn write_of(write: &Value) -> String {
    format!("{} ({})", text(&write["write"]), text(&write["stamp"]))
}

/// The report for a person.
fn told(report: &Value) -> String {
    let mut out = format!("{}/{}\n", text(&report["namespace"]), text(&report["key"]));
    for (region, answer) in report["regions"].as_object().into_iter().flatten() {
        if let Some(reason) = answer["unreached"].as_str() {
            let _ = writeln!(out, "  {region} was not reached: {reason}");
            continue;
        }
        let now = &answer["now"];
        let siblings = now["siblings"].as_array().map_or(&[][..], Vec::as_slice);
        let _ = match siblings {
            [] => writeln!(out, "  {region} holds nothing of it"),
            [one] => writeln!(out, "  {region} holds {} {}", text(&one["state"]), write_of(&one["version"])),
            several => {
                let why = now["resolved_by"].as_str().or(now["not_shown"].as_str()).unwrap_or("a delete is shown");
                writeln!(out, "  {region} holds {} writes beside each other, shown by: {why}", several.len())
            }
        };
        if siblings.len() > 1 {
            for sibling in siblings {
                let _ = writeln!(out, "    {} {}", text(&sibling["state"]), write_of(&sibling["version"]));
            }
        }
        if let Some(damaged) = answer["damaged"].as_u64().filter(|damaged| *damaged > 0) {
            let _ = writeln!(out, "    {damaged} entries of its conflict log are damaged, and passed over");
        }
    }
    let conflicts = report["conflicts"].as_array().map_or(&[][..], Vec::as_slice);
    if conflicts.is_empty() {
        out += "nothing of it lost against a concurrent write, as far as is known\n";
    }
    for conflict in conflicts {
        let what =
            if conflict["delete"] == true { "a delete".to_owned() } else { format!("{} bytes", conflict["bytes"]) };
        let _ = writeln!(
            out,
            "lost: {}, {what}\n  to {}\n  by {} ({})",
            write_of(&conflict["lost"]),
            write_of(&conflict["to"]),
            text(&conflict["by"]),
            because(text(&conflict["cause"]))
        );
        for noted in conflict["noted"].as_array().into_iter().flatten() {
            let kept = if noted["kept"] == true { "value kept" } else { "no value kept" };
            let _ = write!(
                out,
                "  noted in {} at {} under generation {} ({}), {kept}",
                text(&noted["region"]),
                noted["at"].as_u64().map_or_else(String::new, |at| super::time(model::UnixMillis(at))),
                noted["generation"],
                noted["policy"].as_str().unwrap_or("no policies")
            );
            if let Some(value) = noted["value"].as_object() {
                let shown = value.get("text").or(value.get("base64")).and_then(Value::as_str).unwrap_or_default();
                let _ = write!(out, ": {shown}");
            } else if let Some(reason) = noted["not_shown"].as_str() {
                let _ = write!(out, ": {reason}");
            }
            out += "\n";
        }
    }
    out
}

/// What a cause means.
fn because(cause: &str) -> &str {
    match cause {
        "strategy" => "the strategy shows the other one",
        "pending" => "its resolver has not answered: the last write is shown meanwhile",
        "resolver" => "the resolver chose the other one",
        "merged" => "the resolver made one value of all",
        "settled" => "a later write replaced all siblings",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_entries_of_several_regions_are_told_once_and_different_ones_apart() {
        let region = |id: &str| RegionId::new(id).unwrap();
        let write = |name: &str| json!({ "write": name, "region": "eu-west", "stamp": "5.0" });
        let entry = |number: u64, to: &str| {
            json!({
                "number": number, "at": number, "generation": 1, "policy": "abc", "kept": true, "lost": write("eu-west.0.1.1"),
                "to": write(to), "by": "last-write-wins", "cause": "strategy", "bytes": 3, "delete": false,
            })
        };
        let answer = |entry: Value| Ok(json!({ "now": { "siblings": [] }, "damaged": 0, "conflicts": [entry] }));
        let answers = BTreeMap::from([
            (region("ap-southeast"), answer(entry(1, "us-east.0.1.1"))),
            (region("eu-west"), answer(entry(7, "us-east.0.1.1"))),
            (region("us-east"), answer(entry(2, "us-east.0.1.9"))),
        ]);
        let record = Address { namespace: "notes".parse().unwrap(), key: "a/b".parse().unwrap() };
        let report = report(&record, &answers);
        let noted: Vec<usize> =
            report["conflicts"].as_array().unwrap().iter().map(|c| c["noted"].as_array().unwrap().len()).collect();
        assert_eq!(noted, [2, 1], "{report}");
        let told = told(&report);
        assert!(
            told.contains("lost: eu-west.0.1.1 (5.0), 3 bytes\n  to us-east.0.1.1 (5.0)\n  by last-write-wins"),
            "{told}"
        );
        assert_eq!(escaped("a/b ü"), "a%2Fb%20%C3%BC");
    }
}
