//! What a section, a key and a kind of value are, and how sections are declared. Pure.

use serde_json::Value as Json;

use super::{
    fault::At,
    node::{Body, Node, Table},
    reader::Reader,
};

/// Whether a key has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Without it there is a fault.
    Required,
    /// It may be left out, and nothing stands in its place.
    Optional,
    /// It may be left out: its example is its default; without an example, an empty table or list.
    Default,
}

/// One key of a section.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it is, for people.
    pub doc: &'static str,
    /// Whether it has to be there.
    pub need: Need,
    /// An example, as TOML; for [`Need::Default`] the default.
    pub example: Option<&'static str>,
    /// The JSON Schema of its value.
    pub schema: fn() -> Json,
    /// The keys below it, when it holds tables.
    pub below: fn() -> &'static [Key],
}

/// A table of known keys.
pub(super) trait Section: Sized {
    /// What it is, for people.
    const DOC: &'static str;
    /// Its keys.
    const KEYS: &'static [Key];
    /// Reads it. Keys that are faulty or not there are `None` in it.
    fn read(reader: &mut Reader<'_>, table: &Table, here: At) -> Self;
}

/// A kind of value: how it is read and what editors know of it.
pub(super) trait Kind {
    /// What it becomes.
    type Value;
    /// Reads it; a fault is reported and gives `None`.
    fn read(reader: &mut Reader<'_>, node: &Node, at: &At) -> Option<Self::Value>;
    /// Its JSON Schema.
    fn schema() -> Json;
    /// The keys below it, when it holds tables.
    fn below() -> &'static [Key] {
        &[]
    }
    /// What stands there when nothing does.
    fn nothing() -> Body {
        Body::Table(Table::default())
    }
}

/// Declares sections: one table that the reader, the did-you-mean and the JSON Schema all come from.
macro_rules! sections {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident {
            $( $(#[doc = $key_doc:literal])+ $need:ident $key:ident: $kind:ty $(= $example:tt)?; )+
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub(in crate::config) struct $name {
            /// Where the section stands.
            #[allow(dead_code, reason = "not every section has rules of its own")]
            pub here: $crate::config::fault::At,
            $( $(#[doc = $key_doc])+ pub $key: Option<Read<<$kind as Kind>::Value>>, )+
        }

        impl Section for $name {
            const DOC: &'static str = concat!($($doc),+);
            const KEYS: &'static [Key] = &[ $( Key {
                name: stringify!($key),
                doc: concat!($($key_doc),+),
                need: Need::$need,
                example: sections!(@example $($example)?),
                schema: <$kind as Kind>::schema,
                below: <$kind as Kind>::below,
            } ),+ ];
            fn read(
                reader: &mut $crate::config::reader::Reader<'_>,
                table: &$crate::config::node::Table,
                here: $crate::config::fault::At,
            ) -> Self {
                let mut keys = Self::KEYS.iter();
                $( let $key = keys.next().and_then(|key| reader.key::<$kind>(table, &here, key)); )+
                Self { here, $($key),+ }
            }
        }
    )+ };
    (@example) => { None };
    (@example $example:tt) => { Some(stringify!($example)) };
}
pub(super) use sections;
