//! `chowki pull`: headquarters' side. Mirrors incidents, evidence, recordings and coverage of one gateway or of hundreds into a
//! directory or an object store, and goes on where it stopped.

mod client;
mod mirror;
mod place;

use std::{
    io::IsTerminal as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use self::{
    client::Gateway,
    mirror::{Mirror, Report},
    place::Place,
};
use super::{exit, output};
use crate::{
    config,
    district::{clock::Utc, secret::Secret},
    host::clock,
    uplink::{
        objects::{self, S3},
        tls,
    },
};

/// Mirror gateways: incidents and their evidence, recordings of an interval, what is held.
///
/// What is there already and whole is not fetched again; a recording goes on at the byte where it stopped. Every object of
/// evidence is checked against the gateway's manifest. A gateway that is down delays no other.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki pull --into /srv/evidence --token-file vms.token https://10.0.0.7:8443
  chowki pull --into /srv/evidence --gateways gateways.txt --every 60s
  chowki pull --into s3://archive --s3-endpoint http://10.0.0.9:9000 --s3-key-id hq --s3-secret-file s3.secret \\
      --gateways gateways.txt
  chowki pull --into /srv/video --no-incidents --recordings --from 2026-11-27T10:00:00Z --until 2026-11-27T12:00:00Z \\
      --camera cam-0101 https://10.0.0.7:8443

A file of gateways has a line for each: its address and, where it is another than --token-file, its token's file.

Exit status: 0 everything was had, 1 something was not (the report says what), 2 the command line is wrong, 66 a file
cannot be read.")]
pub struct Args {
    /// Gateways: https://HOST:PORT.
    gateways: Vec<String>,
    /// A file with more of them, one a line.
    #[arg(long = "gateways", value_name = "FILE")]
    list: Option<PathBuf>,
    /// Where to: a directory, or s3://BUCKET[/PREFIX].
    #[arg(long)]
    into: String,
    /// File that holds the token.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Certificates to trust beside the system's, PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Leave incidents and their evidence out.
    #[arg(long)]
    no_incidents: bool,
    /// Recordings of the interval too.
    #[arg(long, requires = "from")]
    recordings: bool,
    /// From when recordings and coverage are wanted, RFC 3339.
    #[arg(long)]
    from: Option<Utc>,
    /// Until when; now when left out.
    #[arg(long, requires = "from")]
    until: Option<Utc>,
    /// Of which cameras; all when left out.
    #[arg(long = "camera")]
    cameras: Vec<String>,
    /// Gateways at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Objects at a time of each gateway.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    streams: u16,
    /// Again and again, so long after the end of the last time: 60s, 5m, 1h.
    #[arg(long, value_parser = span)]
    every: Option<Duration>,
    /// The S3 service, where it is not Amazon's.
    #[arg(long)]
    s3_endpoint: Option<String>,
    /// Its region.
    #[arg(long)]
    s3_region: Option<String>,
    /// The access key's id.
    #[arg(long)]
    s3_key_id: Option<String>,
    /// File that holds the access key's secret.
    #[arg(long)]
    s3_secret_file: Option<PathBuf>,
    /// Print the report as JSON on standard output, a line for each gateway and time.
    #[arg(long)]
    json: bool,
}

/// What is to be pulled of each gateway.
struct Wanted {
    incidents: bool,
    recordings: bool,
    interval: Option<(Utc, Utc)>,
    cameras: Vec<String>,
    streams: usize,
}

fn span(text: &str) -> Result<Duration, String> {
    config::duration(text).map_err(|_| format!("{text:?} is no time such as 60s, 5m or 1h"))
}

/// Runs `chowki pull`.
pub fn run(args: &Args) -> ExitCode {
    let prepared = gateways(args).and_then(|gateways| Ok((gateways, place(args)?)));
    let (gateways, place) = match prepared {
        Ok(prepared) => prepared,
        Err((status, why)) => {
            eprintln!("error: {why}");
            return status.into();
        }
    };
    match super::runtime() {
        Ok(runtime) => runtime.block_on(pull(args, &gateways, &place)),
        Err(e) => {
            eprintln!("error: cannot start: {e}");
            exit::FAILED.into()
        }
    }
}

type Refusal = (u8, String);

/// All gateways, each with its address.
fn gateways(args: &Args) -> Result<Vec<(String, Gateway)>, Refusal> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|e| (exit::NO_INPUT, format!("cannot read {}: {e}", path.display())))
    };
    let token = |path: &PathBuf| read(path).map(|text| Secret::new(text.trim_end()));
    let usual = args.token_file.as_ref().map(token).transpose()?;
    let mut all: Vec<(String, Option<Secret>)> = args.gateways.iter().map(|g| (g.clone(), usual.clone())).collect();
    if let Some(list) = &args.list {
        for line in read(list)?.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (address, file) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let own = (!file.trim().is_empty()).then(|| list.with_file_name(file.trim()));
            all.push((address.to_owned(), own.as_ref().map(token).transpose()?.or_else(|| usual.clone())));
        }
    }
    if all.is_empty() {
        return Err((
            exit::USAGE,
            "name a gateway, such as https://10.0.0.7:8443, or a file of them by --gateways".into(),
        ));
    }
    let ca = args.ca.as_deref().map(read).transpose()?;
    let tls = tls::http_config(ca.as_ref().map(String::as_bytes)).map_err(|e| (exit::NO_INPUT, super::chain(&e)))?;
    let gateway = |(address, token): (String, Option<Secret>)| {
        let gateway = Gateway::new(&address, token.as_ref(), tls.clone()).map_err(|why| (exit::USAGE, why))?;
        Ok((address, gateway))
    };
    all.into_iter().map(gateway).collect()
}

fn place(args: &Args) -> Result<Place, Refusal> {
    if !args.into.starts_with("s3://") {
        let dir = PathBuf::from(args.into.strip_prefix("file://").unwrap_or(&args.into));
        std::fs::create_dir_all(&dir)
            .map_err(|e| (exit::CANNOT_CREATE, format!("cannot make {}: {e}", dir.display())))?;
        return Ok(Place::Directory(dir));
    }
    let secret = args.s3_secret_file.as_ref().map(|path| {
        let text = std::fs::read_to_string(path);
        text.map(|text| Secret::new(text.trim_end()))
            .map_err(|e| (exit::NO_INPUT, format!("cannot read {}: {e}", path.display())))
    });
    let s3 = S3 {
        endpoint: args.s3_endpoint.clone(),
        region: args.s3_region.clone(),
        access_key: args.s3_key_id.clone().zip(secret.transpose()?),
        ..S3::default()
    };
    let settings = objects::Settings { s3, ..objects::Settings::new(&args.into) };
    let store = objects::open(&settings).map_err(|e| (exit::USAGE, super::chain(&e)))?;
    Ok(Place::Store(Box::new(store)))
}

/// Once, or again and again until it is asked to stop.
async fn pull(args: &Args, gateways: &[(String, Gateway)], place: &Place) -> ExitCode {
    let stop = super::asked_to_stop();
    tokio::pin!(stop);
    loop {
        let once = once(args, gateways, place);
        let whole = tokio::select! {
            whole = once => whole,
            // What was begun is gone on with the next time. A service that is stopped has not failed.
            () = &mut stop => return if args.every.is_some() { ExitCode::SUCCESS } else { exit::FAILED.into() },
        };
        let whole = match whole {
            Ok(whole) => whole,
            Err(status) => return status,
        };
        let Some(every) = args.every else {
            return if whole { ExitCode::SUCCESS } else { exit::FAILED.into() };
        };
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = &mut stop => return ExitCode::SUCCESS,
        }
    }
}

/// All gateways once. Whether everything was had.
async fn once(args: &Args, gateways: &[(String, Gateway)], place: &Place) -> Result<bool, ExitCode> {
    let until = args.until.unwrap_or_else(clock::wall);
    let wanted = Wanted {
        incidents: !args.no_incidents,
        recordings: args.recordings,
        interval: args.from.map(|from| (from, until)),
        cameras: args.cameras.clone(),
        streams: usize::from(args.streams),
    };
    let shown = if args.json || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bars = Arc::new(MultiProgress::with_draw_target(shown));
    let style = ProgressStyle::with_template("{spinner} {prefix:20} {bytes:>11} {bytes_per_sec:>12}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let mirrored = gateways.iter().map(|(address, gateway)| {
        let (bars, style, wanted) = (bars.clone(), style.clone(), &wanted);
        async move {
            let bar = bars.add(ProgressBar::no_length().with_style(style).with_prefix(address.clone()));
            bar.enable_steady_tick(Duration::from_millis(250));
            let report = Report { gateway: address.clone(), ..Report::default() };
            let mut mirror = Mirror { gateway, place, wanted, bar, report };
            mirror.run().await;
            mirror.bar.finish_and_clear();
            mirror.report
        }
    });
    let mut mirrored = stream::iter(mirrored).buffer_unordered(usize::from(args.parallel));
    let mut whole = true;
    while let Some(report) = mirrored.next().await {
        whole &= report.failed.is_empty();
        let text = if args.json { format!("{}\n", json!(report)) } else { told(&report) };
        bars.suspend(|| output::print(&text))?;
    }
    Ok(whole)
}

/// A report for people.
fn told(report: &Report) -> String {
    let Report { gateway, district, incidents, fetched, bytes, kept, failed } = report;
    let name = district.as_deref().map_or_else(|| gateway.clone(), |district| format!("{district} ({gateway})"));
    let size = *bytes as f64 / 1e6;
    let mut text = format!(
        "{name}: {incidents} incidents changed, {fetched} files fetched ({size:.1} MB), {kept} there already\n"
    );
    failed.iter().for_each(|what| text.push_str(&format!("  not had: {what}\n")));
    text
}
