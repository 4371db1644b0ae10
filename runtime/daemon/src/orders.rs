//! `repomind-run drain|evacuate|restore|pin|failover`: an operator's word about a region.
//!
//! What would follow is shown first, and asked about on a terminal. The order is given to the primary, which has the
//! regions agree on it; `orders` shows those that hold and the last ones, with who gave them and why.
//!
//! Exit code 0 when it is done, 1 when it was refused or not wanted, 2 when nobody could be asked.

use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use model::orders::{OrderAnswer, OrderPlan, OrderRequest, Orders, Wish};
use model::{Country, Millis, RegionId};

use crate::args::{FINDING, Place};
use crate::explain::day_and_time;
use crate::policy::{Primary, author};

/// The regions agree within this long, or the answer says that they do not.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often an evacuated region is asked whether the others have its data.
const LOOK: Duration = Duration::from_millis(200);

/// Flags that all orders have.
#[derive(Clone, Debug, Args)]
pub struct OrderFlags {
    /// The region.
    pub region: RegionId,
    #[command(flatten)]
    pub word: WordFlags,
}

/// Flags of all orders but the region.
#[derive(Clone, Debug, Args)]
pub struct WordFlags {
    /// Why; it stands beside the order.
    #[arg(long, default_value = "not stated")]
    pub reason: String,
    /// Say what would follow, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Also where the others would be fuller than 80 %, or records have no other home. The last region that serves is
    /// never taken out.
    #[arg(long)]
    pub force: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `drain` and `evacuate`.
#[derive(Clone, Debug, Args)]
pub struct OutArgs {
    #[command(flatten)]
    flags: OrderFlags,
    /// For how long, such as 90s, 30m, 2h or 1d; until `restore` unless stated.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    lasts: Option<Millis>,
}

/// Flags of `restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    flags: OrderFlags,
}

/// Flags of `pin`.
#[derive(Clone, Debug, Args)]
pub struct PinArgs {
    #[command(flatten)]
    flags: OrderFlags,
    /// The countries whose clients go there first, separated by commas; all unless stated.
    #[arg(long, value_delimiter = ',', value_name = "COUNTRY")]
    clients: Vec<Country>,
    /// For how long, such as 90s, 30m, 2h or 1d.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    lasts: Millis,
}

/// Flags of `failover`.
#[derive(Clone, Debug, Args)]
pub struct FailoverArgs {
    /// The region that is to be the primary.
    #[arg(long, value_name = "REGION")]
    to: RegionId,
    #[command(flatten)]
    word: WordFlags,
    /// For how long, such as 90s, 30m, 2h or 1d; until `restore` unless stated.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    lasts: Option<Millis>,
}

/// Flags of `orders`.
#[derive(Clone, Debug, Args)]
pub struct OrdersArgs {
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `drain`.
pub async fn drain(args: OutArgs) -> anyhow::Result<ExitCode> {
    give(Wish::Drain, args.flags, args.lasts, Asking::OnTerminal).await
}

/// `evacuate`.
pub async fn evacuate(args: OutArgs) -> anyhow::Result<ExitCode> {
    give(Wish::Evacuate, args.flags, args.lasts, Asking::OnTerminal).await
}

/// `restore`.
pub async fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    give(Wish::Restore, args.flags, None, Asking::OnTerminal).await
}

/// `pin`.
pub async fn pin(args: PinArgs) -> anyhow::Result<ExitCode> {
    give(Wish::Pin(args.clients.into_iter().collect()), args.flags, Some(args.lasts), Asking::OnTerminal).await
}

/// `failover`.
pub async fn failover(args: FailoverArgs) -> anyhow::Result<ExitCode> {
    let FailoverArgs { to, word, lasts } = args;
    give(Wish::Lead, OrderFlags { region: to, word }, lasts, Asking::OnTerminal).await
}

/// A time such as `90s`, `30m`, `2h`, `1d`.
pub fn time(text: &str) -> Result<Millis, String> {
    let wrong = || format!("{text:?} is no time; state one such as 90s, 30m, 2h or 1d");
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let read = units.into_iter().find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let (number, seconds) = read.ok_or_else(wrong)?;
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    let millis = number.checked_mul(seconds * 1000).filter(|millis| *millis > 0).ok_or_else(wrong)?;
    Ok(Millis(millis))
}

/// When it is asked whether an order is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// On a terminal, unless `--yes` was said.
    OnTerminal,
    /// Always.
    Always,
}

/// Shows what would follow from an order, asks, and gives it.
///
/// # Errors
/// Where no region can be asked.
pub async fn give(wish: Wish, flags: OrderFlags, lasts: Option<Millis>, asking: Asking) -> anyhow::Result<ExitCode> {
    let OrderFlags { region, word: WordFlags { reason, dry_run, force, yes, place, json } } = flags;
    let request = OrderRequest {
        wish: wish.clone(),
        region: region.clone(),
        by: author(),
        why: reason,
        lasts,
        dry_run: true,
        force,
    };
    let plan = match put(&place, &request).await? {
        Ok((_, answer)) => answer.plan,
        Err(findings) => return Ok(refused(&findings)),
    };
    let barred = !plan.never.is_empty() || (!force && !plan.unless_forced.is_empty());
    if dry_run || barred {
        if json {
            println!("{}", serde_json::to_string_pretty(&OrderAnswer { plan, revision: None })?);
        } else {
            account(&plan, force).iter().for_each(|line| println!("{line}"));
        }
        return Ok(if barred { ExitCode::from(FINDING) } else { ExitCode::SUCCESS });
    }
    if !json {
        account(&plan, force).iter().for_each(|line| println!("{line}"));
    }
    let ask = asking == Asking::Always || (!yes && std::io::stdin().is_terminal());
    if ask && !agreed(&plan.order) {
        println!("nothing was changed");
        return Ok(ExitCode::from(FINDING));
    }
    let begun = Instant::now();
    let (primary, answer) = match put(&place, &OrderRequest { dry_run: false, ..request }).await? {
        Ok(answered) => answered,
        Err(findings) => return Ok(refused(&findings)),
    };
    let Some(revision) = answer.revision else {
        account(&answer.plan, force).iter().for_each(|line| eprintln!("{line}"));
        eprintln!("refused: things have changed since it was shown");
        return Ok(ExitCode::from(FINDING));
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    } else {
        println!("done: order {revision}; every region that answers follows it at once, the others when they are back");
    }
    match wish {
        Wish::Evacuate => emptied(&primary, &region, &place).await,
        Wish::Lead if !leads(&region, &place, begun).await? => return Ok(ExitCode::from(FINDING)),
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until a region is the primary, and says so.
async fn leads(region: &RegionId, place: &Place, begun: Instant) -> anyhow::Result<bool> {
    let deployment = crate::status::at(place)?;
    let client = crate::client::Client::new(&place.state)?;
    loop {
        let status = crate::status::gather(&client, &deployment.admins(), &deployment.primary).await;
        if status.primary.as_ref() == Some(region) {
            eprintln!("{region} is the primary, {} ms after the order was given", begun.elapsed().as_millis());
            return Ok(true);
        }
        if begun.elapsed() >= PATIENCE {
            let primary = status.primary.map_or("no region".to_owned(), |primary| primary.to_string());
            eprintln!("{primary} is the primary still; the order stands, and is carried out once {region} is ready");
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What would follow if a region took nobody any more.
///
/// # Errors
/// Where no primary answers, or it refuses to say.
pub async fn foreseen(place: &Place, region: &RegionId) -> anyhow::Result<OrderPlan> {
    let request = OrderRequest {
        wish: Wish::Drain,
        region: region.clone(),
        by: author(),
        why: "what a drill would do".into(),
        lasts: None,
        dry_run: true,
        force: false,
    };
    match put(place, &request).await? {
        Ok((_, answer)) => Ok(answer.plan),
        Err(findings) => {
            anyhow::bail!("{}", findings.iter().map(|one| one.message.as_str()).collect::<Vec<_>>().join("; "))
        }
    }
}

/// Puts a request to the primary; to the next one, where its place was handed on meanwhile.
async fn put(
    place: &Place,
    request: &OrderRequest,
) -> anyhow::Result<Result<(Primary, OrderAnswer), Vec<model::Finding>>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let primary = Primary::of(place).await?;
        match primary.post("/orders", request).await? {
            Ok(answer) => return Ok(Ok((primary, answer))),
            Err(findings) if Instant::now() >= until || !findings.iter().any(is_elsewhere) => return Ok(Err(findings)),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Whether a region refused because it is not the primary: nothing was done then.
fn is_elsewhere(finding: &model::Finding) -> bool {
    ["orders generations; this is", "is the primary; this is", "no region is the primary", "led until it lost touch"]
        .iter()
        .any(|words| finding.message.contains(words))
}

/// Waits until the other regions have all that an evacuated one has, and says so.
async fn emptied(primary: &Primary, region: &RegionId, place: &Place) {
    let Ok(deployment) = crate::status::at(place) else { return };
    let Some(admin) = deployment.admins().get(region).copied() else { return };
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        match primary.client.status(admin).await {
            Ok(status) if status.replication.iter().all(|link| link.backlog == 0) => {
                eprintln!("the other regions have all of {region} that they may hold: it can be switched off");
                return;
            }
            Ok(_) => tokio::time::sleep(LOOK).await,
            Err(_) => {
                eprintln!("{region} does not answer: what it had not sent to others is on its disk alone");
                return;
            }
        }
    }
    eprintln!("{region} has not sent everything to the other regions yet: see the backlog in `repomind-run status`");
}

/// Asks, and reads a line.
fn agreed(order: &str) -> bool {
    print!("{order}? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn refused(findings: &[model::Finding]) -> ExitCode {
    for model::Finding { message, help, .. } in findings {
        eprintln!("error: {message}");
        if !help.is_empty() {
            eprintln!("  help: {help}");
        }
    }
    eprintln!("refused: nothing was changed");
    ExitCode::from(FINDING)
}

/// What follows from an order, a line each.
fn account(plan: &OrderPlan, force: bool) -> Vec<String> {
    let mut lines = vec![plan.order.clone()];
    match plan.moves.lines() {
        moved if moved.is_empty() => lines.push("  no client is served elsewhere than now".to_owned()),
        moved => lines.extend(moved.iter().map(|line| format!("  {line}"))),
    }
    let shown = plan.loads.iter().filter(|load| load.now != load.then);
    lines.extend(shown.map(|load| {
        format!(
            "  {}: {:.1} → {:.1} requests a second, of {:.0} that it can take",
            load.region, load.now, load.then, load.most
        )
    }));
    lines.extend(plan.notes.iter().map(|note| format!("  {note}")));
    lines.extend(plan.never.iter().map(|why| format!("refused: {why}")));
    let word = if force { "all the same" } else { "refused without --force" };
    lines.extend(plan.unless_forced.iter().map(|why| format!("{word}: {why}")));
    lines
}

/// `orders`.
pub async fn list(args: OrdersArgs) -> anyhow::Result<ExitCode> {
    let primary = Primary::of(&args.place).await?;
    let orders: Orders = primary.client.get_admin(primary.admin, "/orders").await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&orders)?);
        return Ok(ExitCode::SUCCESS);
    }
    let holding = lines(&orders.holding(crate::decisions::now()));
    if holding.is_empty() {
        println!("nothing is ordered: every region serves as health and policies have it");
    }
    holding.iter().for_each(|line| println!("{line}"));
    if !orders.past.is_empty() {
        println!("\nthe last orders:");
    }
    orders.past.iter().rev().for_each(|order| println!("  {}  {order}", day_and_time(order.word.at)));
    Ok(ExitCode::SUCCESS)
}

/// The orders that hold, a sentence each.
pub fn lines(holding: &Orders) -> Vec<String> {
    let word = |word: &model::orders::Word| {
        let until = word.until.map_or_else(String::new, |until| format!(" until {}", day_and_time(until)));
        format!("since {}{until}, by {}: {}", day_and_time(word.at), word.by, word.why)
    };
    let out = holding.out.iter().map(|(id, out)| format!("{id} is {} {}", out.state().name(), word(&out.word)));
    let pins = holding.pins.iter().map(|pin| {
        let clients: BTreeSet<&str> = pin.clients.iter().map(Country::as_str).collect();
        let whom = match clients.is_empty() {
            true => "all clients".to_owned(),
            false => format!("clients in {}", clients.into_iter().collect::<Vec<_>>().join(" ")),
        };
        format!("{whom} are pinned to {} {}", pin.region, word(&pin.word))
    });
    let lead = holding.lead.iter().map(|lead| format!("{} is to be the primary {}", lead.region, word(&lead.word)));
    out.chain(pins).chain(lead).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit_and_nothing_else_is() {
        assert_eq!(time("90s"), Ok(Millis(90_000)));
        assert_eq!(time("2h"), Ok(Millis(7_200_000)));
        assert_eq!(time("1d"), Ok(Millis(86_400_000)));
        for wrong in ["", "2", "h", "-1h", "2 h", "0s", "99999999999999999999d", "é"] {
            assert!(time(wrong).is_err(), "{wrong:?} was read");
        }
    }
}
