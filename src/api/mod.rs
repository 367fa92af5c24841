//! Floor 4: HTTP for headquarters and the page.

pub mod page;
