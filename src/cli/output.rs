//! What a command gives on standard output.

use std::{
    io::{self, ErrorKind, Write},
    process::ExitCode,
};

use super::exit;

/// Writes a result to standard output, all of it. A reader that went away wants no more, and is no fault of ours.
///
/// # Errors
/// [`exit::CANNOT_CREATE`], once standard error says why: the disk behind it is full, for example.
pub(super) fn print(text: &str) -> Result<(), ExitCode> {
    write(&mut io::stdout().lock(), text).map_err(|err| {
        let _ = writeln!(io::stderr(), "error: standard output cannot be written: {err}");
        exit::CANNOT_CREATE.into()
    })
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(err) if err.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
