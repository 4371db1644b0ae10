//! Keys that go: with values that may not stay, which may come back, and with people who were erased, for good.

use model::sealing::{DataKeyId, OrderId, Owner};

use super::{ERASED, GONE, KEYS_OF, Vault, VaultError, last_word, read_facts};

impl Vault {
    /// Lets nothing in that needs these keys, until they are dropped, needed again, or let go on.
    pub(crate) fn bar(&self, ids: impl Iterator<Item = DataKeyId>) {
        let mut table = self.table_mut();
        for id in ids {
            table.barred.insert(id);
            table.writing.retain(|_, writing| *writing != id);
        }
    }

    /// These keys are as they were.
    pub(crate) fn unbar<'i>(&self, ids: impl Iterator<Item = &'i DataKeyId>) {
        let mut table = self.table_mut();
        ids.for_each(|id| _ = table.barred.remove(id));
    }

    /// Destroys keys of values that are not here any more; unlike those of an erased owner they may come back.
    /// Gives those that went.
    pub(crate) fn drop_keys(&self, ids: &[DataKeyId]) -> Result<Vec<DataKeyId>, VaultError> {
        let mut slots = self.slots();
        let mut table = self.table_mut();
        // Those that came back meanwhile stay.
        let going: Vec<DataKeyId> = ids.iter().copied().filter(|id| table.barred.contains(id)).collect();
        let places: Vec<u32> = going.iter().filter_map(|id| table.held.get(id).copied()).collect();
        slots.wipe(&places)?;
        for id in &going {
            table.held.remove(id);
            table.fresh.remove(id);
            table.barred.remove(id);
            table.dropped.insert(*id);
        }
        Ok(going)
    }

    /// Destroys the keys of an owner that were made before `order`, and takes no such key from then on. The facts of that
    /// are with the next commit. Gives the keys that are gone.
    pub(crate) fn erase(&self, owner: Owner, order: OrderId) -> Result<Vec<DataKeyId>, VaultError> {
        let mut slots = self.slots();
        let mut ids = Vec::new();
        for (name, bytes) in self.store.facts(&format!("{KEYS_OF}{owner}/"))? {
            if !read_facts(&name, &bytes)?.after.contains(&order) {
                ids.push(last_word(&name)?);
            }
        }
        let mut table = self.table_mut();
        let fresh = table.fresh.iter().filter(|(_, fresh)| fresh.facts.owner == owner);
        ids.extend(fresh.filter(|(_, fresh)| !fresh.facts.after.contains(&order)).map(|(id, _)| *id));
        ids.sort_unstable();
        ids.dedup();
        let places: Vec<u32> = ids.iter().filter_map(|id| table.held.get(id).copied()).collect();
        slots.wipe(&places)?;
        table.erased.entry(owner).or_default().insert(order);
        table.unkept.push((format!("{ERASED}{owner}/{order}"), Vec::new()));
        table.writing.retain(|(of, _), _| *of != owner);
        for id in &ids {
            table.held.remove(id);
            table.gone.insert(*id);
            table.unkept.push((format!("{GONE}{id}"), Vec::new()));
        }
        Ok(ids)
    }
}
