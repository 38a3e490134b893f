//! What is known of a frame before it is translated.

use crate::verdict::Side;
use switchd_wire::Frame;

/// A frame's key, worked out once.
#[derive(Clone, Copy, Debug)]
pub struct Classified {
    side: Side,
}

impl Classified {
    pub(crate) fn of(_frame: &Frame, side: Side) -> Classified {
        Classified { side }
    }

    pub fn side(&self) -> Side {
        self.side
    }
}
