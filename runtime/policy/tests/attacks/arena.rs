//! A host with a good generation, under attack.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::bundle::PolicyTree;
use model::question::{Answer, Question};
use model::{ByteCount, Finding, Millis};
use policy::{Generation, HostError, HostLimits, PolicyHost};
use tokio::runtime::Runtime;

use crate::support;

/// Long enough for an honest load on a busy machine, short enough to wait for in tests.
const LIMITS: HostLimits = HostLimits { load: Millis(3000), question: Millis(2500), memory: ByteCount(256 << 20) };
/// How long remains of an attack may take to vanish.
const CLEAN: Duration = Duration::from_secs(30);
/// The file that attacks stand in.
pub const FILE: &str = "data-replication/conflict-resolution.scm";

/// A host, and a generation that must never notice anything.
struct Arena {
    runtime: Runtime,
    host: PolicyHost,
    good: Generation,
    expected: Answer,
}

impl Arena {
    fn of(executable: &str) -> Mutex<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
        let host = PolicyHost::start(Path::new(executable), support::library(), LIMITS).expect("a host");
        let (good, expected) = runtime.block_on(async {
            let (good, _) = host.load(support::tree(), support::facts()).await.expect("the tree is good");
            let expected = good.ask(question()).await.expect("an answer");
            (good, expected)
        });
        assert!(matches!(expected, Answer::Routes(_)), "{expected:?}");
        Mutex::new(Self { runtime, host, good, expected })
    }
}

static SCANNED: LazyLock<Mutex<Arena>> = LazyLock::new(|| Arena::of(env!("CARGO_BIN_EXE_policy-child")));
static UNSCANNED: LazyLock<Mutex<Arena>> = LazyLock::new(|| Arena::of(env!("CARGO_BIN_EXE_unscanned-child")));
/// One test at a time: they count processes and descriptors.
static TURN: Mutex<()> = Mutex::new(());

/// Waits for the turn of a test.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which child to attack.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Child {
    /// As it runs in earnest.
    Scanned,
    /// Without the scan: the cage alone.
    Unscanned,
}

/// What came of an attack.
#[derive(Debug)]
pub enum Outcome {
    /// The tree was refused.
    Refused(Vec<Finding>),
    /// The question was.
    Lost(HostError),
    /// Nothing was refused: the attack is harmless, and this is what it gave.
    Answered(Answer),
}

impl Outcome {
    /// The one finding of the refusal or loss.
    pub fn finding(self) -> Finding {
        match self {
            Self::Refused(mut findings) if findings.len() == 1 => findings.remove(0),
            Self::Lost(error) => error.finding(),
            other => panic!("one finding was expected: {other:?}"),
        }
    }
}

/// Loads the tree with `forms` at the end of [`FILE`].
pub fn load(child: Child, forms: &str) -> Outcome {
    load_tree(child, support::tree_with(FILE, forms))
}

/// Loads a tree.
pub fn load_tree(child: Child, tree: PolicyTree) -> Outcome {
    attack(child, |host| async move {
        match host.load(tree, support::facts()).await {
            Ok(_) => Outcome::Answered(Answer::Value("loaded".to_owned())),
            Err(findings) => Outcome::Refused(findings),
        }
    })
}

/// Asks a resolver that evaluates `form` when its key says so; `forms` stand before it.
pub fn ask(child: Child, forms: &str, form: &str) -> Outcome {
    let resolver = format!(
        "{forms}\n(define-conflict-resolver 'attack (lambda (key siblings)\n  (if (equal? key \"now\")\n      {form}\n      (latest-sibling siblings))))"
    );
    let tree = support::tree_with(FILE, &resolver);
    attack(child, |host| async move {
        let (generation, _) = match host.load(tree, support::facts()).await {
            Ok(loaded) => loaded,
            Err(findings) => panic!("the attack must wait for its question: {findings:?}"),
        };
        let ask = |key| Question::Resolve {
            resolver: "attack".to_owned(),
            address: support::address(key),
            siblings: vec![support::sibling("us-east", 1, "a"), support::sibling("eu-west", 2, "b")],
        };
        let outcome = match generation.ask(ask("now")).await {
            Ok(Answer::Refused(findings)) => Outcome::Refused(findings),
            Ok(answer) => Outcome::Answered(answer),
            Err(error) => Outcome::Lost(error),
        };
        // The generation itself serves on, from another child if need be.
        let after = generation.ask(ask("later")).await.expect("the generation serves on");
        assert_eq!(after, Answer::Resolved(model::question::Resolution::Winner(1)));
        outcome
    })
}

/// Runs something on the host beside the good generation.
pub fn on_host<F: Future<Output = ()>>(run: impl FnOnce(PolicyHost) -> F) {
    attack(Child::Scanned, |host| async move {
        run(host).await;
        Outcome::Answered(Answer::Value(String::new()))
    });
}

fn question() -> Question {
    Question::Route { facts: support::facts() }
}

fn attack<F: Future<Output = Outcome>>(child: Child, run: impl FnOnce(PolicyHost) -> F) -> Outcome {
    let _turn = turn();
    let arena = if child == Child::Scanned { &SCANNED } else { &UNSCANNED };
    let arena = arena.lock().unwrap_or_else(PoisonError::into_inner);
    let before = quiet();
    let (answered, over) = (AtomicU32::new(0), AtomicBool::new(false));
    let outcome = arena.runtime.block_on(async {
        let host = arena.host.clone();
        let serve = async {
            while answered.load(Ordering::Relaxed) == 0 || !over.load(Ordering::Relaxed) {
                assert_eq!(arena.good.ask(question()).await.expect("an answer during the attack"), arena.expected);
                answered.fetch_add(1, Ordering::Relaxed);
            }
        };
        let attack = async {
            let outcome = run(host).await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let (outcome, ()) = tokio::join!(attack, serve);
        assert_eq!(arena.good.ask(question()).await.expect("an answer after the attack"), arena.expected);
        outcome
    });
    let began = Instant::now();
    let mut after = quiet();
    while after != before && began.elapsed() < CLEAN {
        after = quiet();
    }
    assert_eq!(before, after, "processes or descriptors were left behind: {:?}, {:?}", descendants(), open_files());
    outcome
}

/// What the test process has: descriptors and descendants that live or wait to be reaped.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    descriptors: usize,
    processes: usize,
}

/// What is held once nothing is being started or reaped: each arena has a zygote, a child
/// that serves, one that stands by and two spares, and all of them sleep.
fn quiet() -> Holdings {
    let began = Instant::now();
    let arenas = [&SCANNED, &UNSCANNED].iter().filter(|arena| LazyLock::get(arena).is_some()).count();
    let mut calm = 0;
    loop {
        let all = descendants();
        calm = if all.len() == arenas * 5 && all.values().all(|state| state == "S") { calm + 1 } else { 0 };
        if calm == 5 || began.elapsed() > CLEAN {
            return Holdings { descriptors: descriptors(), processes: all.len() };
        }
        // There is no event for "a thread elsewhere has reaped a process": look again.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// What each descriptor leads to.
fn open_files() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    entries.filter_map(|entry| Some(std::fs::read_link(entry.path()).ok()?.display().to_string())).collect()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// The processes below this one and the state of each, zombies included.
pub fn descendants() -> BTreeMap<u32, String> {
    let all: BTreeMap<u32, (String, u32)> = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // pid (name, which may hold anything) state ppid …
            let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
            Some((id, (rest.next()?.to_owned(), rest.next()?.parse().ok()?)))
        })
        .collect();
    let own = std::process::id();
    let below = |mut id: u32| {
        while let Some(&(_, parent)) = all.get(&id) {
            if parent == own {
                return true;
            }
            id = parent;
        }
        false
    };
    all.iter().filter(|(id, _)| below(**id)).map(|(id, (state, _))| (*id, state.clone())).collect()
}
