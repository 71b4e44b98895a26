//! Every field that is read is described: by the route that reads it.

use serde_json::Value;

use super::{Fields, IMG2IMG, TXT2IMG, fields};

#[test]
fn every_field_belongs_to_a_route() {
    let Ok(Value::Object(all)) = serde_json::to_value(Fields::default()) else { panic!("an object") };
    let (txt2img, img2img) = (fields(&IMG2IMG), fields(&TXT2IMG));
    for name in all.keys() {
        let both = [&txt2img, &img2img].map(|object| object.properties.contains_key(name));
        assert!(both.contains(&true), "`{name}` is not described");
    }
    for name in TXT2IMG.iter().chain(&IMG2IMG) {
        assert!(all.contains_key(*name), "`{name}` is not read");
    }
}
