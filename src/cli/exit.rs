//! Exit statuses, by `sysexits.h`.

/// It could not be done, or not in time.
pub const FAILED: u8 = 1;
/// The command line is wrong, as the parser of it says too.
pub const USAGE: u8 = 2;
/// Of `verify`: it cannot be told.
pub const UNKNOWN: u8 = 2;
/// An input file cannot be read (`EX_NOINPUT`).
pub const NO_INPUT: u8 = 66;
/// An output file cannot be made (`EX_CANTCREAT`).
pub const CANNOT_CREATE: u8 = 73;
/// Something in the config is wrong (`EX_CONFIG`).
pub const CONFIG: u8 = 78;
