//! The canonical file: sections in the order network, port, mirror, names sorted, defaults left out.

use switchd_api::model::Desired;

/// `parse_toml` gives back an equal value, if the value is valid.
pub fn export(desired: &Desired) -> String {
    // Text, numbers, lists and tables with text keys always serialize.
    toml::to_string(desired).expect("the model is representable in TOML")
}
