//! How many there are of something that is bounded: whoever adds one bumps the record, so that two who add at once
//! cannot both take the last place.

use act::{Draw as _, Fault, Plan};
use kernel::Id;
use serde::{Deserialize, Serialize};
use store::{Document, View};

/// A count.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tally {
    /// `tly_<what>`
    pub id: Id,
    /// How many.
    pub count: u32,
}

impl Document for Tally {
    const KIND: &'static str = "access.tally";
    fn id(&self) -> &Id {
        &self.id
    }
}

/// Counts one more of `what`, a constant of the code, of which a tenant has at most `most`.
///
/// # Errors
/// `request.state` if there are that many.
pub(crate) async fn one_more(
    view: &View,
    plan: &mut Plan,
    what: &'static str,
    most: u32,
) -> Result<(), Fault> {
    // A constant of the grammar.
    let id = Id::parse(&format!("tly_{what}")).expect("a constant id");
    let stored = view.get::<Tally>(&id).await?;
    let count = stored.as_ref().map_or(0, |tally| tally.count).saturating_add(1);
    if count > most {
        return Err(Fault::conflict("request.state", format!("a tenant has at most {most} {what}")));
    }
    let tally = Tally { id, count };
    match &stored {
        Some(stored) => plan.draft.put_if(stored, &tally),
        None => plan.draft.put_new(&tally),
    };
    Ok(())
}
