//! How many clients there may be, and who goes first.
//!
//! One process of the user's may hold so many connections, and all together so many. Where one more comes, the oldest that never
//! sent a line gives way: of the same process where that has too many, else of whoever has the most of them. A connection that
//! has spoken is never taken away: it may be a subscriber that only listens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;

/// Connections of one process, which has more to say on one than it can have answered.
pub(super) const OF_A_PROCESS: usize = 128;
/// Of all.
pub(super) const IN_ALL: usize = 512;

const SILENT: u8 = 0;
const SPOKE: u8 = 1;
const AWAY: u8 = 2;

/// The connections that there are, by number.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    places: BTreeMap<u64, (i32, Arc<Place>)>,
}

/// One connection's place.
#[derive(Debug, Default)]
pub(super) struct Place {
    state: AtomicU8,
    away: CancellationToken,
}

/// Nobody can give way to one more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The process has as many as it may.
    Process,
    /// There are as many as are served.
    All,
}

impl Crowd {
    /// A place for connection `id`, the newest, of process `pid`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&mut self, id: u64, pid: i32) -> Result<Arc<Place>, Full> {
        if self.of(pid) >= OF_A_PROCESS && !self.send_away_one_of(pid) {
            return Err(Full::Process);
        }
        if self.places.len() >= IN_ALL && !self.most_silent().is_some_and(|pid| self.send_away_one_of(pid)) {
            return Err(Full::All);
        }
        let place = Arc::<Place>::default();
        self.places.insert(id, (pid, place.clone()));
        Ok(place)
    }

    /// The connection has ended.
    pub fn left(&mut self, id: u64) {
        self.places.remove(&id);
    }

    fn of(&self, pid: i32) -> usize {
        self.places.values().filter(|(owner, _)| *owner == pid).count()
    }

    /// The process with the most connections that never sent a line.
    fn most_silent(&self) -> Option<i32> {
        let mut silent = BTreeMap::<i32, usize>::new();
        for (pid, _) in self.places.values().filter(|(_, place)| place.state.load(Ordering::Relaxed) == SILENT) {
            *silent.entry(*pid).or_default() += 1;
        }
        silent.into_iter().max_by_key(|(_, count)| *count).map(|(pid, _)| pid)
    }

    /// Takes the oldest of that process which never sent a line; false if there is none.
    fn send_away_one_of(&mut self, pid: i32) -> bool {
        let mut own = self.places.iter().filter(|(_, (owner, _))| *owner == pid);
        let Some(id) = own.find(|(_, (_, place))| place.send_away()).map(|(id, _)| *id) else { return false };
        self.places.remove(&id);
        true
    }
}

impl Place {
    /// A line has come. False if the place was taken just before: it will not be answered.
    pub fn speaks(&self) -> bool {
        match self.state.compare_exchange(SILENT, SPOKE, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) | Err(SPOKE) => true,
            Err(_) => false,
        }
    }

    pub fn has_spoken(&self) -> bool {
        self.state.load(Ordering::Relaxed) == SPOKE
    }

    fn send_away(&self) -> bool {
        let away = self.state.compare_exchange(SILENT, AWAY, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if away {
            self.away.cancel();
        }
        away
    }

    /// Ends when the place is taken.
    pub async fn taken(&self) {
        self.away.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_away(place: &Place) -> bool {
        place.away.is_cancelled()
    }

    #[test]
    fn of_a_process_with_too_many_the_oldest_silent_one_goes_first() {
        let mut crowd = Crowd::default();
        let places: Vec<_> = (0..OF_A_PROCESS as u64).map(|id| crowd.enter(id, 7).unwrap()).collect();
        assert!(places[0].speaks());
        let one_more = crowd.enter(1000, 7).unwrap();
        assert!(!is_away(&places[0]) && is_away(&places[1]) && !is_away(&places[2]) && !is_away(&one_more));
        assert!(!places[1].speaks(), "it is not answered");
        assert!(crowd.enter(1001, 8).is_ok());
        assert_eq!(crowd.of(7), OF_A_PROCESS);
    }

    #[test]
    fn who_has_spoken_stays_and_the_process_gets_no_more() {
        let mut crowd = Crowd::default();
        for id in 0..OF_A_PROCESS as u64 {
            assert!(crowd.enter(id, 7).unwrap().speaks());
        }
        assert_eq!(crowd.enter(1000, 7).unwrap_err(), Full::Process);
        crowd.left(5);
        assert!(crowd.enter(1001, 7).is_ok());
    }

    #[test]
    fn in_all_whoever_has_the_most_silent_ones_gives_way() {
        let mut crowd = Crowd::default();
        let mut places = Vec::new();
        let full = |n: usize| n / OF_A_PROCESS;
        for n in 0..IN_ALL {
            let place = crowd.enter(n as u64, i32::try_from(full(n)).unwrap()).unwrap();
            // Those of process 2 are silent, all others speak.
            assert!(full(n) == 2 || place.speaks());
            places.push(place);
        }
        assert!(crowd.enter(1000, 99).is_ok());
        let away: Vec<_> = (0..IN_ALL).filter(|n| is_away(&places[*n])).collect();
        assert_eq!(away, [2 * OF_A_PROCESS]);
        for place in &places[2 * OF_A_PROCESS + 1..3 * OF_A_PROCESS] {
            assert!(place.speaks());
        }
        // The one that came last has not spoken yet.
        assert!(crowd.enter(1001, 100).unwrap().speaks());
        assert_eq!(crowd.enter(1002, 101).unwrap_err(), Full::All);
    }
}
