//! What docs/policies-in-ten-minutes.md has an operator do is done, and comes out as it says.

use model::bundle::POLICY_FILES;

use crate::REGIONS;
use crate::cluster::{Cluster, everywhere, generation, text, until};

const GUIDE: &str = include_str!("../../../../docs/policies-in-ten-minutes.md");

/// A change of a text: what stands there, and what takes its place.
struct Edit {
    from: String,
    to: String,
}

/// The changes that the guide makes, by file, in its order.
fn lessons() -> Vec<(String, Vec<Edit>)> {
    let mut lessons: Vec<(String, Vec<Edit>)> = Vec::new();
    // While inside a block: how far it is indented.
    let mut block = None;
    for line in GUIDE.lines() {
        let (indent, begun) = (line.len() - line.trim_start().len(), line.trim_start());
        let numbered = begun.split_once(". **`").filter(|(number, _)| number.parse::<u32>().is_ok());
        match (block, begun, numbered) {
            (_, _, Some((_, rest))) => lessons.push((rest.split('`').next().unwrap().to_owned(), Vec::new())),
            (_, "```diff", _) => {
                block = Some(indent);
                lessons.last_mut().unwrap().1.push(Edit { from: String::new(), to: String::new() });
            }
            (_, "```", _) => block = None,
            (Some(indent), ..) => {
                let edit = lessons.last_mut().unwrap().1.last_mut().unwrap();
                let (mark, rest) = line[indent..].split_at(1);
                if mark != "+" {
                    edit.from += &format!("{rest}\n");
                }
                if mark != "-" {
                    edit.to += &format!("{rest}\n");
                }
            }
            _ => {}
        }
    }
    lessons
}

#[test]
fn every_change_of_the_guide_comes_into_force_in_every_region() {
    let lessons = lessons();
    let files: std::collections::BTreeSet<&str> = lessons.iter().map(|(file, _)| file.as_str()).collect();
    let all: std::collections::BTreeSet<&str> = POLICY_FILES.iter().copied().collect();
    assert_eq!(files, all, "the guide changes something in each file");
    // The guide is for regions as far apart as they are: without distances chance would say which is nearest.
    let cluster = Cluster::tree();
    let deployed = cluster.run(&["deploy", "--wan", "realistic"]);
    assert!(deployed.status.success(), "{}", text(&deployed));
    for (at, (file, edits)) in lessons.iter().enumerate() {
        let path = cluster.file(file);
        let mut source = std::fs::read_to_string(&path).unwrap();
        assert!(!edits.is_empty(), "the guide changes nothing in {file}");
        for Edit { from, to } in edits {
            assert_eq!(source.matches(from.as_str()).count(), 1, "{file} does not have once:\n{from}");
            source = source.replace(from.as_str(), to);
        }
        std::fs::write(&path, source).unwrap();
        let now = at as u64 + 2;
        until(&format!("the change of {file}"), std::time::Duration::from_secs(60), || {
            let status = cluster.status("us-east")?;
            let errors = status["policy_errors"].as_array()?;
            assert!(errors.is_empty() && status["policy_waiting"].is_null(), "{file}: {status}");
            (status["generation"] == now).then_some(())
        });
        everywhere(&cluster, now);
    }

    // The way back of the ninth waits for a word, as the guide says.
    let path = cluster.file("compliance/data-residency.scm");
    let mut source = std::fs::read_to_string(&path).unwrap();
    for Edit { from, to } in &lessons.iter().find(|(file, _)| file == "compliance/data-residency.scm").unwrap().1 {
        source = source.replace(to.as_str(), from);
    }
    std::fs::write(&path, source).unwrap();
    let hash = until("the way back waiting", std::time::Duration::from_secs(60), || {
        Some(cluster.status("us-east")?["policy_waiting"]["hash"].as_str()?.to_owned())
    });
    let shown = text(&cluster.run(&["policy", "confirm"]));
    assert!(shown.contains(&hash) && shown.contains("more permissive"), "{shown}");
    assert!(REGIONS.iter().all(|region| generation(&cluster, region) == Some(11)), "it did not wait");
    let given = cluster.run(&["policy", "confirm", &hash]);
    assert!(given.status.success(), "{}", text(&given));
    everywhere(&cluster, 12);
}
