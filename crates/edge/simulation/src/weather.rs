//! How much goes wrong in a history.

use testkit::Random;

/// Most crashes of one history. A run gives up after more starts without a word than this can cause.
const CRASHES_MAX: usize = 3;

/// How bad it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Calls of the store that are refused, in a thousand.
    pub refuse: usize,
    /// Writes that happen and are called failed, in a thousand.
    pub lose: usize,
    /// Requests that are turned away, in a hundred.
    pub turn_away: usize,
    /// Replies that are lost, in a hundred.
    pub unheard: usize,
    /// How often the process still dies.
    pub crashes: usize,
    /// Moments at which a lease's time passes, in a thousand.
    pub sleeps: usize,
    /// Whether somebody cancels.
    pub cancels: bool,
}

impl Weather {
    /// The weather of a seed.
    pub(crate) fn of(seed: u64, random: &mut Random) -> Weather {
        // Every eighth history has nothing but its order.
        if seed.is_multiple_of(8) {
            return Weather::default();
        }
        let mut upto = |most: usize| if random.chance(50) { random.below(most + 1) } else { 0 };
        Weather {
            refuse: upto(40),
            lose: upto(60),
            turn_away: upto(25),
            unheard: upto(25),
            crashes: upto(CRASHES_MAX),
            sleeps: upto(20),
            cancels: upto(1) == 1,
        }
    }
}
