//! Clients: sessions that write, delete and read, and now and then move to another region.

use std::collections::BTreeMap;
use std::pin::Pin;

use data::{DataError, ETag, View, Write, Written};
use model::record::{Address, Row};
use model::replication::AckLevel;
use model::version::CausalContext;
use model::{Key, Namespace};

use crate::history::Made;
use crate::limits::Terms;
use crate::plans::{Kind, NAMESPACES, RESOLVED, RESOLVER};
use crate::world::World;

/// Keys of each namespace.
const KEYS: u64 = 5;

/// A session.
#[derive(Debug, Default)]
pub struct Client {
    /// The region that it speaks to.
    pub region: usize,
    /// What it was told that it has seen, by key.
    contexts: BTreeMap<Address, CausalContext>,
    /// The write that it saw last, by key.
    seen: BTreeMap<Address, usize>,
    /// The tag under which it saw a key last.
    tags: BTreeMap<Address, ETag>,
    /// Whether it waits for an answer.
    pub busy: bool,
}

type Writing = Pin<Box<dyn Future<Output = Result<Written, DataError>>>>;
type Reading = Pin<Box<dyn Future<Output = Result<Option<View>, DataError>>>>;

impl Client {
    /// A new session with a region.
    pub fn at(region: usize) -> Self {
        Self { region, ..Self::default() }
    }
}

/// A request without an answer yet.
pub enum Asked {
    /// A write.
    Write {
        /// What it writes; none deletes.
        value: Option<String>,
        /// Where it may be; unknown for a delete of whatever is there.
        kind: Option<Kind>,
        /// The number of the write, once it has reached the log.
        made: Option<usize>,
        /// When it is over, and what it is made on condition of.
        terms: Terms,
        /// Goes on when it is asked to.
        future: Writing,
    },
    /// A read.
    Read(Reading),
}

/// Who asked what of whom.
pub struct Pending {
    /// The client.
    pub client: usize,
    /// The region, and the process that answers there.
    pub region: usize,
    /// See above.
    pub process: u64,
    /// The key.
    pub address: Address,
    /// The request.
    pub asked: Asked,
}

fn poll<T>(future: &mut Pin<Box<dyn Future<Output = T>>>) -> Option<T> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

impl World {
    /// A client asks for something.
    pub fn ask(&mut self, client: usize) {
        let random = &mut self.random;
        if random.one_in(8) {
            self.clients[client].region = random.below(self.sites.len() as u64) as usize;
        }
        let region = self.clients[client].region;
        let site = &self.sites[region];
        let Some(data) = site.data.clone().filter(|_| !site.paused) else { return };
        let namespace = match self.options.resolvers && random.one_in(2) {
            true => RESOLVED,
            false => *random.pick(&NAMESPACES),
        };
        let namespace = Namespace::new(namespace).expect("a fixed name");
        let key = Key::new(format!("key-{}", random.below(KEYS))).expect("a short key");
        let address = Address { namespace, key };
        let context = self.clients[client].contexts.get(&address).cloned();
        let (process, read) = (site.process, random.below(10) < 4);
        let asked = if read {
            let at = address.clone();
            Asked::Read(Box::pin(async move { data.read_after(&at, context.as_ref()).await }))
        } else {
            let kind = *random.pick(&Kind::ALL);
            let deletes = random.below(10) < 3;
            let as_it_is = deletes && random.one_in(2);
            self.values += 1;
            let value = (!deletes).then(|| format!("value-{}-{kind:?};", self.values));
            let ack = match random.below(6) {
                0 => Some(AckLevel::Regions(2)),
                1 => Some(AckLevel::Majority),
                _ => None,
            };
            let mut labels = if as_it_is { Default::default() } else { kind.labels() };
            let mut terms = Terms::default();
            if self.options.limits {
                terms = Terms::draw(random, self.now, deletes, self.clients[client].tags.get(&address));
                labels.retain_until = terms.until;
            }
            let write = Write {
                address: address.clone(),
                value: value.as_ref().map(|value| bytes::Bytes::copy_from_slice(value.as_bytes())),
                content_type: "text/plain".into(),
                labels,
                if_match: terms.is.clone().map(Into::into),
                if_none_match: terms.absent,
                context: context.filter(|_| random.one_in(2)),
                ack,
            };
            let future: Writing = Box::pin(async move { data.write(write).await });
            Asked::Write { value, kind: (!as_it_is).then_some(kind), made: None, terms, future }
        };
        self.clients[client].busy = true;
        self.pending.push(Pending { client, region, process, address, asked });
    }

    /// Asks every request whether it is done.
    ///
    /// # Errors
    /// A promise that was not kept.
    pub fn poll(&mut self) -> Result<(), String> {
        for mut pending in std::mem::take(&mut self.pending) {
            let site = &self.sites[pending.region];
            if site.process != pending.process || site.data.is_none() {
                // The connection broke: whoever asked does not know.
                self.clients[pending.client].busy = false;
                continue;
            }
            if site.paused {
                self.pending.push(pending);
                continue;
            }
            if !self.go_on(&mut pending)? {
                self.pending.push(pending);
            }
        }
        Ok(())
    }

    /// Whether the request is done.
    fn go_on(&mut self, pending: &mut Pending) -> Result<bool, String> {
        let data = self.sites[pending.region].data.clone().expect("the region is up");
        let (client, region, address) = (pending.client, pending.region, pending.address.clone());
        match &mut pending.asked {
            Asked::Read(future) => {
                let Some(outcome) = poll(future) else { return Ok(false) };
                self.clients[client].busy = false;
                self.note(|| format!("{client} reads {address} in {region}: {}", shown(&outcome)));
                self.was_read(client, region, &address, outcome)?;
            }
            Asked::Write { value, kind, made, terms, future } => {
                let before = data.row(&address).ok().flatten();
                let outcome = poll(future);
                let after = data.row(&address).ok().flatten();
                // Such a write has made nothing: what came under its key is what the logs had of it.
                let damaged = matches!(outcome, Some(Err(DataError::Damaged { .. })));
                if made.is_none() && !damaged {
                    *made = self.find_made((region, &address, value, *kind), before.as_ref(), after.as_ref())?;
                    if let Some(number) = *made {
                        self.history.made[number].until = terms.until;
                        self.check_terms(region, &address, terms, (before.as_ref(), after.as_ref()))?;
                    }
                }
                if let Some(Err(DataError::OverQuota { .. })) = &outcome {
                    self.check_refusal(region, &address)?;
                }
                let Some(outcome) = outcome else { return Ok(false) };
                self.clients[client].busy = false;
                let told =
                    outcome.as_ref().map(|written| (written.copies, written.reached)).map_err(ToString::to_string);
                self.note(|| format!("{client} writes {value:?} to {address} in {region}: {told:?}"));
                match (outcome, *made) {
                    (Ok(written), Some(number)) => {
                        self.history.made[number].acknowledged = Some(written.copies);
                        self.stats.acknowledged += 1;
                        self.clients[client].contexts.insert(address.clone(), written.context);
                        self.clients[client].tags.insert(address.clone(), written.etag);
                        self.clients[client].seen.insert(address, number);
                    }
                    (Ok(_), None) => return Err(format!("a write to {address} was acknowledged and is not there")),
                    (Err(_), Some(_)) if self.sites[region].full => {}
                    (Err(error), Some(_)) => return Err(format!("a write was refused ({error}) and is there")),
                    (Err(_), None) => {}
                }
            }
        }
        Ok(true)
    }

    /// The write that turned one state of a row into the next.
    pub(crate) fn find_made(
        &mut self,
        (region, address, value, kind): (usize, &Address, &Option<String>, Option<Kind>),
        before: Option<&Row>,
        after: Option<&Row>,
    ) -> Result<Option<usize>, String> {
        let siblings = |row: Option<&Row>| row.map_or_else(Vec::new, |row| row.siblings.clone());
        let (before, after) = (siblings(before), siblings(after));
        let same = |one: &model::record::Sibling, other: &model::record::Sibling| one.version.dot == other.version.dot;
        let Some(new) = after.iter().find(|new| !before.iter().any(|old| same(old, new))) else { return Ok(None) };
        let gone = before.iter().filter(|old| !after.iter().any(|kept| same(old, kept)));
        let gone: Vec<_> = gone.map(|old| old.version.dot.clone()).collect();
        let kind = match kind {
            Some(kind) => kind,
            // Labelled as what was there, or as the namespace has it: then by what the scope became.
            None => self.kind_of(new).ok_or("a delete has labels that nothing here has")?,
        };
        let made = Made {
            dot: new.version.dot.clone(),
            hlc: new.version.hlc,
            address: address.clone(),
            value: value.clone(),
            kind,
            region,
            disks_lost: 0,
            acknowledged: None,
            past: Default::default(),
            excused: false,
            until: None,
            expiry: false,
        };
        self.history.add(made, &gone).map(Some)
    }

    fn kind_of(&self, sibling: &model::record::Sibling) -> Option<Kind> {
        use model::record::DataClass;
        let labels = sibling.content.labels()?;
        let american = labels.jurisdictions.iter().any(|country| country.as_str() == "US");
        Some(match labels.classes.first()? {
            DataClass::SourceCode => Kind::Code,
            DataClass::Personal if american => Kind::American,
            DataClass::Personal => Kind::German,
            _ => Kind::Public,
        })
    }

    /// Session guarantees, and no value from nowhere.
    fn was_read(
        &mut self,
        client: usize,
        region: usize,
        address: &Address,
        outcome: Result<Option<View>, DataError>,
    ) -> Result<(), String> {
        let Ok(view) = outcome else { return Ok(()) };
        self.stats.read += 1;
        let last = self.clients[client].seen.get(address).copied().filter(|last| !self.history.made[*last].excused);
        let last_wins = address.namespace.as_str() == NAMESPACES[0];
        let learning = self.sites[region].data.as_ref().is_some_and(data::DataPlane::is_learning);
        let Some(view) = view else {
            let Some(last) = last.filter(|last| self.history.made[*last].value.is_some()) else { return Ok(()) };
            // Where the last write wins, it can only be a later delete.
            let wins = |other: &Made| !last_wins || other.order() >= self.history.made[last].order();
            let deleted = |other: &Made| {
                other.address == *address
                    && other.value.is_none()
                    && wins(other)
                    && !self.history.made[last].past.contains(&self.number(other))
            };
            // A record that lives elsewhere by now is hidden where it was not allowed, and deletes may be there too.
            let hidden = learning || self.history.may_be_hidden(last, region);
            let over = |other: &Made| {
                other.address == *address
                    && wins(other)
                    && self.is_over_in(region, other)
                    && !self.history.made[last].past.contains(&self.number(other))
            };
            return match hidden || self.history.made.iter().any(|other| deleted(other) || over(other)) {
                true => Ok(()),
                false => Err(format!(
                    "client {client} saw {:?} of {address}, and {region} says that there is no such record",
                    self.history.made[last].value
                )),
            };
        };
        let value = String::from_utf8_lossy(view.record.payload.bytes()).into_owned();
        if view.resolved_by == RESOLVER {
            return self.was_merged(region, address, &value, view.context, client);
        }
        let Some(number) = self.history.of_value(&value) else {
            return Err(format!("{region} shows {value:?}, which nobody wrote"));
        };
        let made = &self.history.made[number];
        if made.address != *address || !made.kind.may_be_in(region) {
            return Err(format!("{region} shows {value:?} as {address}, where it may not be"));
        }
        self.check_not_over(region, address, number)?;
        if let Some(last) = last.filter(|last| self.history.made[*last].past.contains(&number)) {
            let newer = &self.history.made[last].value;
            return Err(format!("client {client} saw {newer:?} of {address}, and {region} shows the older {value:?}"));
        }
        // A session does not go back in the order by which the last write wins, either.
        if let Some(last) = last.filter(|last| {
            let order = |number: usize| self.history.made[number].order();
            // A delete that all have forgotten wins over nothing that is written later, however a clock stamped it.
            let forgotten = || number > *last && self.is_forgotten(*last);
            let backwards = last_wins && order(number) < order(*last);
            backwards && !learning && !self.history.may_be_hidden(*last, region) && !forgotten()
        }) {
            let before = &self.history.made[last];
            let what = before.value.as_deref().unwrap_or("a delete");
            return Err(format!(
                "client {client} saw {what} ({} at {}) of {address}, and {region} shows {value:?} ({} at {}), over which it wins",
                before.dot, before.hlc, made.dot, made.hlc
            ));
        }
        self.clients[client].contexts.insert(address.clone(), view.context);
        self.clients[client].tags.insert(address.clone(), view.etag);
        self.clients[client].seen.insert(address.clone(), number);
        Ok(())
    }

    /// A value that the resolver made: of values that were written to this key, and may be here.
    fn was_merged(
        &mut self,
        region: usize,
        address: &Address,
        merged: &str,
        context: CausalContext,
        client: usize,
    ) -> Result<(), String> {
        for value in crate::plans::parts(merged) {
            let made = self.history.of_value(&value).map(|number| &self.history.made[number]);
            if made.is_none_or(|made| made.address != *address || !made.kind.may_be_in(region)) {
                return Err(format!("{region} shows {merged:?} as {address}: {value:?} is none of its values there"));
            }
        }
        self.clients[client].contexts.insert(address.clone(), context);
        self.clients[client].seen.remove(address);
        Ok(())
    }

    fn number(&self, made: &Made) -> usize {
        self.history.of_dot(&made.dot).expect("it is in the history")
    }
}

fn shown(outcome: &Result<Option<View>, DataError>) -> String {
    match outcome {
        Ok(Some(view)) => format!("{:?}", String::from_utf8_lossy(view.record.payload.bytes())),
        Ok(None) => "nothing".into(),
        Err(error) => error.to_string(),
    }
}
