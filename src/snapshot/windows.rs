//! Windows: what the stream changed while a chunk was read beside it.
//!
//! A window belongs to a chunk and is open from before the chunk's snapshot is taken until the chunk is merged. The
//! stream tells of each source transaction as it begins, and, while windows are open, of each key that it writes. Two
//! questions are answered here:
//!
//! - Which rows of the chunk the stream has overtaken: those whose keys were noted.
//! - Whether a chunk's snapshot will do ([`Windows::judge`]). It won't if a transaction that came down the stream
//!   before the window opened is still in progress in it: its changes were not noted, and the snapshot lacks them. That
//!   happens because a commit is decoded before it is visible, for long where replication is synchronous.
//!
//! The transactions that came last are remembered, so many that a forgotten one has long been visible in practice. For
//! proof there is the *horizon*: above it, every transaction that ever came down the stream is remembered. Of one below,
//! it isn't known whether it did. Where such a one is still in progress, it is asked whether it has written to the
//! heap at all, which its lock on it tells until it is visible.
//!
//! In progress in a snapshot is what it lists, and everything from its `xmax` on: it doesn't list those, though they may
//! long have committed and wait for a standby, if only none that is later has become visible.
//!
//! Pure, but for the memory it takes, which is bounded.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::kafka::TopicId;

/// So many transactions are remembered.
const REMEMBERED: usize = 1 << 16;
/// The keys noted in all windows take no more bytes than this, with what a set costs besides.
const NOTED_BYTES_MAX: usize = 24 << 20;
/// From so many bytes on, it pays to look at the chunk's own keys.
const LONG_BYTES: usize = 256 << 10;
/// What a key costs in a set, beyond its bytes.
const KEY_COST: usize = 48;

/// Names an open window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WindowId(u64);

#[derive(Debug)]
struct Window {
    id: WindowId,
    table: TopicId,
    /// How many transactions had come when it opened.
    opened_at: u64,
    noted: Noted,
    noted_bytes: usize,
}

/// What a window knows of the keys.
#[derive(Debug)]
enum Noted {
    /// The stream wrote these.
    Keys(HashSet<Box<[u8]>>),
    /// The stream wrote all of the chunk's but these.
    Left(HashSet<Box<[u8]>>),
    /// The table was emptied.
    Truncated,
    /// There was no room for all that the stream wrote.
    Crowded,
}

/// What a chunk's window had to say in the end.
#[derive(Debug, PartialEq, Eq)]
pub enum Closed {
    /// The chunk holds but for these keys.
    Noted(HashSet<Box<[u8]>>),
    /// Of the chunk, only these keys hold.
    Left(HashSet<Box<[u8]>>),
    /// The table was emptied: the chunk has to be read again.
    Truncated,
    /// More keys were changed than there was room for: the chunk has to be read again, and smaller.
    Crowded,
}

/// Whether a snapshot will do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It will.
    Good,
    /// It lacks what the stream has brought already: take another one.
    TooOld,
    /// It will if none of these transactions, still in progress in it, has written to the heap.
    Unless(Unknown),
}

/// Transactions of which it isn't known whether they have come down a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Their ids.
    pub xids: Vec<u32>,
    /// How many transactions had come when this was found.
    came: u64,
}

/// The stream as far as chunks have to know of it.
#[derive(Debug)]
pub struct Windows {
    recent: VecDeque<u32>,
    /// How many transactions have come, remembered or not.
    came: u64,
    horizon: u32,
    open: Vec<Window>,
    next_id: u64,
    /// By heap and transaction: how many transactions had come when it was known not to have written to the heap.
    cleared: HashMap<(u32, u32), u64>,
    noted_bytes: usize,
    remembered: usize,
    noted_bytes_max: usize,
}

/// Whether `a` is a later transaction id than `b`: they wrap around.
fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

impl Windows {
    /// For a stream of which nothing has come yet. `horizon` is the newest transaction id that may have come down an
    /// earlier one.
    pub fn new(horizon: u32) -> Self {
        Self {
            recent: VecDeque::new(),
            came: 0,
            horizon,
            open: Vec::new(),
            next_id: 0,
            cleared: HashMap::new(),
            noted_bytes: 0,
            remembered: REMEMBERED,
            noted_bytes_max: NOTED_BYTES_MAX,
        }
    }

    /// A source transaction begins; all its changes will be noted in the windows that are open now. Tells whether there
    /// are any. Not to be called for a transaction that is skipped, be it in part.
    pub fn begin(&mut self, xid: u32) -> bool {
        if self.recent.len() == self.remembered
            && let Some(forgotten) = self.recent.pop_front()
            && is_later(forgotten, self.horizon)
        {
            self.horizon = forgotten;
        }
        self.recent.push_back(xid);
        self.came += 1;
        self.is_any_open()
    }

    /// Every snapshot from now on sees all transactions before `xmin`. Those need not be remembered; and they must not be
    /// for ever, since ids wrap around.
    pub fn all_see(&mut self, xmin: u32) {
        if self.open.is_empty() {
            self.recent.retain(|xid| !is_later(xmin, *xid));
        }
    }

    /// Whether any window is open.
    pub fn is_any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Opens a window. A transaction that has begun already counts as come before: its changes need not be noted.
    pub fn open(&mut self, table: TopicId) -> WindowId {
        let id = WindowId(self.next_id);
        self.next_id += 1;
        let noted = Noted::Keys(HashSet::new());
        self.open.push(Window { id, table, opened_at: self.came, noted, noted_bytes: 0 });
        id
    }

    /// Notes that the stream wrote a record with this key. Tells whether a window has become long by it.
    pub fn note(&mut self, table: TopicId, key: &[u8]) -> bool {
        let mut has_become_long = false;
        for window in self.open.iter_mut().filter(|window| window.table == table) {
            let keys = match &mut window.noted {
                Noted::Keys(keys) => keys,
                Noted::Left(left) => {
                    left.remove(key);
                    continue;
                }
                Noted::Truncated | Noted::Crowded => continue,
            };
            if keys.contains(key) {
                continue;
            }
            let cost = key.len() + KEY_COST;
            if self.noted_bytes + cost > self.noted_bytes_max {
                self.noted_bytes -= window.give_up(Noted::Crowded);
            } else {
                keys.insert(key.into());
                has_become_long |= window.noted_bytes < LONG_BYTES && window.noted_bytes + cost >= LONG_BYTES;
                window.noted_bytes += cost;
                self.noted_bytes += cost;
            }
        }
        has_become_long
    }

    /// Whether so much is noted in a window that it pays to look at the chunk's own keys.
    pub fn is_long(&self, id: WindowId) -> bool {
        let mut open = self.open.iter().filter(|window| window.id == id);
        open.any(|window| window.noted_bytes >= LONG_BYTES && matches!(window.noted, Noted::Keys(_)))
    }

    /// Lets a window go by the keys of its chunk from now on: those that are left need no more room, whatever comes.
    pub fn narrow<'k>(&mut self, id: WindowId, keys: impl Iterator<Item = &'k [u8]>) {
        let Some(window) = self.open.iter_mut().find(|window| window.id == id) else { return };
        let Noted::Keys(noted) = &window.noted else { return };
        let left = keys.filter(|key| !noted.contains(*key)).map(Box::from).collect();
        self.noted_bytes -= window.give_up(Noted::Left(left));
    }

    /// Notes that the stream emptied the table.
    pub fn truncated(&mut self, table: TopicId) {
        for window in self.open.iter_mut().filter(|window| window.table == table) {
            self.noted_bytes -= window.give_up(Noted::Truncated);
        }
    }

    /// Closes a window, and tells what was noted in it.
    pub fn close(&mut self, id: WindowId) -> Closed {
        let Some(at) = self.open.iter().position(|window| window.id == id) else { return Closed::Truncated };
        let window = self.open.swap_remove(at);
        self.noted_bytes -= window.noted_bytes;
        match window.noted {
            Noted::Keys(keys) => Closed::Noted(keys),
            Noted::Left(keys) => Closed::Left(keys),
            Noted::Truncated => Closed::Truncated,
            Noted::Crowded => Closed::Crowded,
        }
    }

    /// Whether a snapshot that was taken while the window was open will do for its chunk, which is of this heap. The
    /// snapshot doesn't see the transactions that are in progress in it, nor any from `next` on, begun or not: ids are
    /// handed out in one order, and transactions end in another.
    pub fn judge(&self, id: WindowId, heap: u32, in_progress: &[u32], next: u32) -> Verdict {
        let Some(window) = self.open.iter().find(|window| window.id == id) else { return Verdict::TooOld };
        if !is_later(next, self.horizon) {
            // Of those in between, it isn't known whether they came. The next snapshot lists them.
            return Verdict::TooOld;
        }
        let after = usize::try_from(self.came - window.opened_at).unwrap_or(usize::MAX);
        let before = self.recent.len().saturating_sub(after);
        let unseen: HashSet<u32> = in_progress.iter().copied().collect();
        let is_unseen = |xid: &u32| !is_later(next, *xid) || unseen.contains(xid);
        if self.recent.range(..before).any(is_unseen) {
            return Verdict::TooOld;
        }
        let came_after: HashSet<u32> =
            self.recent.range(before..).filter(|came| unseen.contains(came)).copied().collect();
        // Had it come since it was cleared, it would be remembered: not so many have come.
        let is_cleared =
            |xid: &u32| self.cleared.get(&(heap, *xid)).is_some_and(|came| self.came - came < self.remembered as u64);
        let is_unknown = |xid: &&u32| !is_later(**xid, self.horizon) && !came_after.contains(xid) && !is_cleared(xid);
        let xids: Vec<u32> = in_progress.iter().filter(is_unknown).copied().collect();
        if xids.is_empty() { Verdict::Good } else { Verdict::Unless(Unknown { xids, came: self.came }) }
    }

    /// Those of the transactions that hold no writer's lock on the heap, asked for since it was found that they are
    /// unknown. Whatever one of them wrote that has come down a stream by then, it wrote before; if it is in progress in a
    /// later snapshot, it would have its lock.
    pub fn clear(&mut self, heap: u32, unknown: &Unknown, writers: &[u32]) {
        let (came, remembered) = (self.came, self.remembered as u64);
        self.cleared.retain(|_, at| came - *at < remembered);
        let clear = unknown.xids.iter().filter(|xid| !writers.contains(xid));
        self.cleared.extend(clear.map(|xid| ((heap, *xid), unknown.came)));
    }
}

impl Window {
    /// Goes on with something else than what was noted; tells how many bytes that were.
    fn give_up(&mut self, noted: Noted) -> usize {
        self.noted = noted;
        std::mem::take(&mut self.noted_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TopicId = TopicId(0);
    const OTHER: TopicId = TopicId(1);
    const HEAP: u32 = 7;

    fn unknown(windows: &Windows, window: WindowId, in_progress: &[u32]) -> Unknown {
        unknown_before(windows, window, in_progress, 40)
    }

    fn unknown_before(windows: &Windows, window: WindowId, in_progress: &[u32], next: u32) -> Unknown {
        match windows.judge(window, HEAP, in_progress, next) {
            Verdict::Unless(unknown) => unknown,
            Verdict::Good => Unknown { xids: Vec::new(), came: 0 },
            Verdict::TooOld => panic!("too old"),
        }
    }

    fn noted(keys: &[&[u8]]) -> Closed {
        Closed::Noted(keys.iter().map(|key| Box::from(*key)).collect())
    }

    #[test]
    fn a_window_notes_the_keys_of_its_table_while_it_is_open() {
        let mut windows = Windows::new(10);
        assert!(!windows.begin(11));
        let window = windows.open(TABLE);
        assert!(windows.begin(12));
        windows.note(TABLE, b"a");
        windows.note(OTHER, b"b");
        windows.note(TABLE, b"a");
        assert_eq!(windows.close(window), noted(&[b"a"]));
        assert!(!windows.begin(13));
        assert_eq!(windows.noted_bytes, 0);
    }

    #[test]
    fn a_snapshot_is_too_old_that_lacks_what_came_before_the_window() {
        let mut windows = Windows::new(10);
        windows.begin(11);
        let window = windows.open(TABLE);
        windows.begin(12);
        assert_eq!(windows.judge(window, HEAP, &[11], 20), Verdict::TooOld);
        // What came since was noted, and what has not come is no matter.
        assert_eq!(windows.judge(window, HEAP, &[12, 13], 20), Verdict::Good);
        assert_eq!(windows.judge(window, HEAP, &[], 20), Verdict::Good);
    }

    #[test]
    fn a_snapshot_sees_nothing_from_its_next_transaction_id_on_though_it_lists_none_of_it() {
        let mut windows = Windows::new(10);
        windows.begin(13);
        windows.begin(11);
        let window = windows.open(TABLE);
        windows.begin(14);
        assert_eq!(windows.judge(window, HEAP, &[], 11), Verdict::TooOld);
        assert_eq!(windows.judge(window, HEAP, &[], 13), Verdict::TooOld);
        assert_eq!(windows.judge(window, HEAP, &[], 14), Verdict::Good);
        // Of 10, it isn't known whether it came, and this one wouldn't tell whether it is in progress.
        let mut windows = Windows::new(10);
        let window = windows.open(TABLE);
        assert_eq!(windows.judge(window, HEAP, &[], 10), Verdict::TooOld);
        assert_eq!(windows.judge(window, HEAP, &[], 11), Verdict::Good);
    }

    #[test]
    fn of_what_came_before_the_run_or_long_ago_it_is_not_known_whether_it_came() {
        let mut windows = Windows::new(10);
        windows.remembered = 2;
        for xid in [20, 21, 22] {
            windows.begin(xid);
        }
        let window = windows.open(TABLE);
        assert_eq!(unknown(&windows, window, &[9, 15, 20, 30]).xids, [9, 15, 20]);
        assert_eq!(windows.judge(window, HEAP, &[21], 40), Verdict::TooOld);
        assert_eq!(windows.judge(window, HEAP, &[23], 40), Verdict::Good);
        windows.begin(12);
        // Begun before 20 was forgotten, but it came after the window opened: its changes are noted.
        assert_eq!(windows.judge(window, HEAP, &[12], 40), Verdict::Good);
    }

    #[test]
    fn a_transaction_that_has_not_written_to_the_heap_is_no_matter_until_it_could_have_come_and_been_forgotten() {
        let mut windows = Windows::new(10);
        windows.remembered = 2;
        let window = windows.open(TABLE);
        let found = unknown(&windows, window, &[8, 9]);
        windows.clear(HEAP, &found, &[9]);
        assert_eq!(unknown(&windows, window, &[8, 9]).xids, [9]);
        assert_eq!(unknown(&windows, window, &[8]).xids.len(), 0);
        windows.begin(20);
        assert_eq!(windows.judge(window, HEAP, &[8], 40), Verdict::Good);
        windows.begin(21);
        assert_eq!(unknown(&windows, window, &[8]).xids, [8]);
    }

    #[test]
    fn a_long_window_goes_by_the_keys_of_its_chunk_and_takes_no_more_room() {
        let mut windows = Windows::new(10);
        let window = windows.open(TABLE);
        windows.note(TABLE, b"a");
        assert!(!windows.is_long(window));
        assert!(windows.note(TABLE, &[7; LONG_BYTES]) && windows.is_long(window));
        windows.narrow(window, [&b"a"[..], b"b", b"c"].into_iter());
        assert!(!windows.is_long(window) && windows.noted_bytes == 0);
        windows.note(TABLE, b"b");
        windows.note(TABLE, b"d");
        assert_eq!(windows.noted_bytes, 0);
        assert_eq!(windows.close(window), Closed::Left([Box::from(&b"c"[..])].into()));
    }

    #[test]
    fn what_every_snapshot_sees_is_forgotten_while_no_chunk_is_read() {
        let mut windows = Windows::new(10);
        windows.begin(20);
        windows.begin(30);
        let window = windows.open(TABLE);
        windows.all_see(25);
        assert_eq!(windows.recent.len(), 2);
        windows.close(window);
        windows.all_see(25);
        assert_eq!(windows.recent, [30]);
        let window = windows.open(TABLE);
        assert_eq!(windows.judge(window, HEAP, &[30], 40), Verdict::TooOld);
    }

    #[test]
    fn transaction_ids_wrap_around() {
        let mut windows = Windows::new(u32::MAX - 1);
        windows.begin(5);
        let window = windows.open(TABLE);
        assert_eq!(unknown_before(&windows, window, &[u32::MAX - 3, 6], 9).xids, [u32::MAX - 3]);
        assert_eq!(windows.judge(window, HEAP, &[5], 9), Verdict::TooOld);
        assert_eq!(windows.judge(window, HEAP, &[], 5), Verdict::TooOld);
    }

    #[test]
    fn a_truncate_or_too_many_keys_spoil_a_window() {
        let mut windows = Windows::new(10);
        let truncated = windows.open(TABLE);
        windows.note(TABLE, b"a");
        windows.truncated(TABLE);
        assert_eq!(windows.close(truncated), Closed::Truncated);
        windows.noted_bytes_max = 3 * (KEY_COST + 1);
        let (crowded, other) = (windows.open(TABLE), windows.open(OTHER));
        windows.note(OTHER, b"a");
        for key in [b"a", b"b", b"c", b"d"] {
            windows.note(TABLE, key);
        }
        assert_eq!(windows.close(crowded), Closed::Crowded);
        assert_eq!(windows.close(other), noted(&[b"a"]));
        assert_eq!(windows.noted_bytes, 0);
    }
}
