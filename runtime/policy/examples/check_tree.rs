//! Loads the policies of a project directory and prints what they declare and
//! answer, or what is wrong with them: `check_tree DIR [EXPRESSION]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use model::bundle::{POLICY_FILES, PolicyTree};
use model::question::{Answer, Question};
use model::record::{Basis, DataClass, Purpose};
use model::region::Coordinates;
use model::residency::{Law, ResidencyCase};
use model::routing::{ClientClass, ClientFacts, Facts, RegionFacts, RegionState};
use model::{ByteCount, Country, Finding, Micros, Millis, RegionId};
use policy::{HostLimits, PolicyHost};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "policy-host") {
        policy::child_main(&arguments[1..]);
    }
    let Some(folder) = arguments.first() else {
        eprintln!("usage: check_tree DIR [EXPRESSION]");
        return ExitCode::from(64);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(check(Path::new(folder), arguments.get(1))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(findings) => {
            for finding in &findings {
                println!("{}\n", finding.render(false));
            }
            ExitCode::FAILURE
        }
    }
}

async fn check(folder: &Path, expression: Option<&String>) -> Result<(), Vec<Finding>> {
    let library = library(&folder.join("scm"));
    let mut tree = PolicyTree::default();
    for file in POLICY_FILES {
        if let Ok(text) = std::fs::read_to_string(folder.join(file)) {
            tree.0.insert((*file).to_owned(), text);
        }
    }
    let limits = HostLimits { load: Millis(10_000), question: Millis(5_000), memory: ByteCount(512 << 20) };
    println!("cage lacks: {:?}", policy::cage_report());
    let host = PolicyHost::start(&std::env::current_exe().expect("this file"), library, limits)
        .map_err(|error| told(&error))?;
    if let Some(expression) = expression {
        println!("{}", host.scratch_eval(tree, facts(), expression.clone()).await?);
        return Ok(());
    }
    let began = Instant::now();
    let (generation, declarations) = host.load(tree, facts()).await?;
    println!("loaded in {:?}: {declarations:#?}", began.elapsed());
    let began = Instant::now();
    let routes = generation.ask(Question::Route { facts: facts() }).await.map_err(|error| told(&error))?;
    println!("routes in {:?}: {routes:?}", began.elapsed());
    let cases = cases();
    let began = Instant::now();
    let rulings = generation.ask(Question::Residency { cases: cases.clone() }).await.map_err(|error| told(&error))?;
    println!("residency of {} cases in {:?}", cases.len(), began.elapsed());
    match rulings {
        Answer::Residency(rulings) => {
            for (case, ruling) in
                cases.iter().zip(&rulings.of_case).filter(|(case, _)| case.basis == Basis::Contract).step_by(37)
            {
                println!("{case:?}: {:?}", rulings.distinct[*ruling as usize].hold);
            }
        }
        Answer::Refused(findings) => return Err(findings),
        other => println!("unexpected: {other:?}"),
    }
    Ok(())
}

fn told(error: &dyn std::fmt::Display) -> Vec<Finding> {
    vec![Finding::error("", "", (0, 0), error.to_string(), "")]
}

fn library(folder: &Path) -> BTreeMap<String, String> {
    let modules = std::fs::read_dir(folder.join("repomind")).into_iter().flatten().flatten();
    modules
        .filter_map(|entry| {
            let name = format!("repomind/{}", entry.file_name().to_str()?);
            Some((name, std::fs::read_to_string(entry.path()).ok()?))
        })
        .collect()
}

/// The three regions of the default tree, and a client on each continent.
fn facts() -> Facts {
    let place = |latitude, longitude| Coordinates { latitude, longitude };
    let country = |code| Country::new(code).expect("a country");
    let region = |id: &str, code, coordinates, trips: &[(&str, u64)]| RegionFacts {
        id: RegionId::new(id).expect("a name"),
        country: country(code),
        jurisdiction: country(code),
        coordinates,
        features: ["full-api", "websockets"].map(|name| name.parse().expect("a feature")).into_iter().collect(),
        primary: id == "us-east",
        max_instances: 50,
        state: RegionState::Ready,
        round_trips: trips
            .iter()
            .map(|(to, ms)| (RegionId::new(to).expect("a name"), Micros::from_millis(*ms)))
            .collect(),
    };
    let client = |code, continent: &str, coordinates| ClientFacts {
        class: ClientClass { country: Some(country(code)) },
        continent: Some(continent.to_owned()),
        coordinates: Some(coordinates),
    };
    Facts {
        regions: vec![
            region("ap-southeast", "SG", place(1.3, 103.8), &[("us-east", 220), ("eu-west", 175)]),
            region("eu-west", "IE", place(53.3, -6.3), &[("us-east", 70), ("ap-southeast", 175)]),
            region("us-east", "US", place(38.9, -77.4), &[("eu-west", 70), ("ap-southeast", 220)]),
        ],
        clients: vec![
            client("DE", "EU", place(51.0, 9.0)),
            client("US", "NA", place(38.0, -97.0)),
            client("JP", "AS", place(36.0, 138.0)),
        ],
    }
}

fn cases() -> Vec<ResidencyCase> {
    let mut cases = BTreeSet::new();
    for (&class, law) in DataClass::ALL.iter().flat_map(|class| Law::all().into_iter().map(move |law| (class, law))) {
        for (&basis, &purpose) in
            Basis::ALL.iter().flat_map(|basis| Purpose::ALL.iter().map(move |purpose| (basis, purpose)))
        {
            cases.insert(ResidencyCase { class, law, basis, purpose });
        }
    }
    cases.into_iter().collect()
}
